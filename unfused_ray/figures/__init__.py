"""Drawings of runs and evaluations."""
