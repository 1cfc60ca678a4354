"""A clip is resampled if its rate differs, and keeps its type."""

from __future__ import annotations

import numpy as np

from unfused_ray.audio.resample import resampled


def test_a_clip_has_the_samples_of_the_rate_asked_for_and_its_type() -> None:
    wave = (8_000 * np.sin(np.arange(16_000) * 0.1)).astype(np.int16)
    assert resampled(wave, 16_000, 16_000) is wave
    half = resampled(wave, 16_000, 8_000)
    assert half.shape == (8_000,) and half.dtype == np.int16
    assert np.abs(half[100:-100].astype(int) - wave[200:-200:2]).max() < 20
