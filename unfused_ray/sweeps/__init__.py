"""Sweeps of a distillation's settings with Ray Tune, judged on validation clips, resumed trial by trial."""
