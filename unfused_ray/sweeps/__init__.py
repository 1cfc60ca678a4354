"""Sweeps of a distillation's settings with Ray Tune, judged on validation clips, resumed trial by trial."""

SWEEP = "sweep.json"
"""Record of a sweep, by which its folder is known; here, because the modules of this package import Ray Tune."""
