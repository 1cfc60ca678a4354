"""Measurements: speed/ (make bench) and chaos/ (make chaos). Run as modules: python -m benchmarks.speed.step."""
