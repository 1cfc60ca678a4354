"""Measures everything that a GPU has to show of this project, in one file: ``python -m benchmarks.gpu``."""
