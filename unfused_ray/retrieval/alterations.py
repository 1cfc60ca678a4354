"""Typical alterations of clips in copies: another level, codecs, filters, noise, and cuts."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
import soundfile

from unfused_ray.audio.resample import resampled

Alteration = Callable[[np.ndarray, int], np.ndarray]
"""Alters a clip: (samples,) int16 and its rate in Hz → (samples,) int16 at that rate."""
_CODEC_RATE = 16_000
"""A rate that Opus and MP3 support."""


def _gain(pcm: np.ndarray, sample_rate: int) -> np.ndarray:
    return (pcm * 0.5).astype(np.int16)


def _noise(pcm: np.ndarray, sample_rate: int) -> np.ndarray:
    wave = pcm.astype(np.float64)
    strength = np.sqrt((wave**2).mean()) * 10 ** (-30 / 20)
    return _clipped(wave + np.random.default_rng(len(pcm)).normal(0, strength, len(wave)))


def _tilt(pcm: np.ndarray, sample_rate: int) -> np.ndarray:
    return _clipped(0.5 * np.convolve(pcm.astype(np.float64), [1, -0.5], "same"))


def _half_rate(pcm: np.ndarray, sample_rate: int) -> np.ndarray:
    return resampled(resampled(pcm, sample_rate, sample_rate // 2), sample_rate // 2, sample_rate)


def _cut(pcm: np.ndarray, sample_rate: int) -> np.ndarray:
    return pcm[len(pcm) // 10 :]


def _trim(pcm: np.ndarray, sample_rate: int) -> np.ndarray:
    samples = round(0.05 * sample_rate)
    return pcm[samples:] if len(pcm) > 2 * samples else pcm


def _through(format: str, subtype: str) -> Alteration:
    def alter(pcm: np.ndarray, sample_rate: int) -> np.ndarray:
        buffer = io.BytesIO()
        soundfile.write(buffer, resampled(pcm, sample_rate, _CODEC_RATE), _CODEC_RATE, format=format, subtype=subtype)
        buffer.seek(0)
        return resampled(soundfile.read(buffer, dtype="int16")[0], _CODEC_RATE, sample_rate)

    return alter


def _clipped(wave: np.ndarray) -> np.ndarray:
    return np.clip(np.round(wave), -32768, 32767).astype(np.int16)


ALTERATIONS: Mapping[str, Alteration] = {
    "half the level": _gain,
    "Opus": _through("OGG", "OPUS"),
    "MP3": _through("MP3", "MPEG_LAYER_III"),
    "noise at -30 dB": _noise,
    "an equaliser": _tilt,
    "half the rate": _half_rate,
    "50 ms cut off": _trim,
    "a tenth cut off": _cut,
}
"""Every alteration, by name."""
