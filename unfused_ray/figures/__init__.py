"""Drawings of runs, evaluations and sweeps, from plain arrays and from run folders."""
