"""Completes clips that are shorter than a crop."""

from __future__ import annotations

import numpy as np

from unfused_ray.config import ShortClips


def complete(wave: np.ndarray, length: int, rule: ShortClips) -> np.ndarray:
    """Complete a clip to ``length`` samples: centred in silence (``centre``) or repeated (``tile``).

    (samples,) of any type → (length,) of the same type. A clip of that length or longer is returned unchanged.
    """
    if len(wave) >= length:
        return wave
    if rule == "tile":
        return np.resize(wave, length)
    out = np.zeros(length, wave.dtype)
    start = (length - len(wave)) // 2
    out[start : start + len(wave)] = wave
    return out
