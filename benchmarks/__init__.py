"""Measurements: ``speed/`` (make bench) and ``chaos/`` (make chaos), run as modules: python -m
benchmarks.speed.step."""
