"""Sweeps of a distillation's settings with Ray Tune, judged on validation clips, resumed trial by trial."""

SWEEP = "sweep.json"
"""File with the record of a sweep, which marks its folder. It is named here because this package's modules import Ray
Tune."""
