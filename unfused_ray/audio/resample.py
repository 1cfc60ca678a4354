"""Resamples whole clips."""

from __future__ import annotations

import numpy as np
import soxr


def resampled(wave: np.ndarray, sample_rate: int, target_rate: int) -> np.ndarray:
    """Resample a clip to another rate, in Hz: (samples,) float or int16 → (samples at that rate,) of the same type.

    A clip that has this rate already is returned unchanged.
    """
    return wave if sample_rate == target_rate else soxr.resample(wave, sample_rate, target_rate)
