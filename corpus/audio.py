"""Loads, trims, fades and levels audio: mono float32 samples at 16 kHz throughout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soxr

from unfused_ray.audio.decode import decode

SAMPLE_RATE = 16000
MIN_SECONDS = 0.15
"""Least length of a clip in seconds, unless its task sets another."""
_SILENCE_DB = -70.0  # below the peak; quieter ends are cut off
_LEAST_LEVEL = 1e-4  # of full scale: three steps of a 16-bit sample
_PIECE = 1 << 20  # samples decoded at once


def load(path: Path, start: float = 0.0, seconds: float | None = None) -> np.ndarray:
    """Decode a file of any format, or a part of one.

    Raises:
        AudioError: the file cannot be read, or holds no samples.
    """
    with path.open("rb") as file:
        pieces = list(decode(file, SAMPLE_RATE, _PIECE, start, seconds))
    return np.concatenate(pieces).astype(np.float32) / 32768


def resample(wave: np.ndarray, sample_rate: float, to: float = SAMPLE_RATE) -> np.ndarray:
    """Change the sample rate."""
    wave = np.ascontiguousarray(wave, np.float32)
    return wave if sample_rate == to else soxr.resample(wave, sample_rate, to, quality="HQ")


def trim(wave: np.ndarray) -> np.ndarray:
    """Cut digital silence off both ends: 70 dB below the peak, or less than three steps of a 16-bit sample."""
    if not len(wave):
        return wave
    loud = np.flatnonzero(np.abs(wave) > max(_LEAST_LEVEL, 10 ** (_SILENCE_DB / 20) * np.abs(wave).max()))
    return wave[loud[0] : loud[-1] + 1] if len(loud) else wave[:0]


def trim_speech(wave: np.ndarray, floor_db: float = -25.0) -> np.ndarray:
    """Cut pauses off both ends: frames of 20 ms that are at least ``floor_db`` below the loudest frame."""
    hop = SAMPLE_RATE // 50
    num_frames = len(wave) // hop
    if num_frames < 3:
        return wave
    level = np.sqrt((wave[: num_frames * hop].reshape(num_frames, hop) ** 2).mean(1) + 1e-12)
    loud = np.flatnonzero(level > level.max() * 10 ** (floor_db / 20))
    return wave[max(0, loud[0] - 1) * hop : (loud[-1] + 2) * hop]


def fade(wave: np.ndarray, milliseconds: float = 5.0, at_start: bool = False) -> np.ndarray:
    """Fade out the end and, with ``at_start``, fade in the start, so that a cut makes no click."""
    length = min(int(milliseconds * SAMPLE_RATE / 1000), len(wave) // 2)
    wave = wave.copy()
    if length:
        wave[-length:] *= np.linspace(1, 0, length, dtype=np.float32)
        if at_start:
            wave[:length] *= np.linspace(0, 1, length, dtype=np.float32)
    return wave


def set_level(wave: np.ndarray, dbfs: float = -23.0) -> np.ndarray:
    """Scale to an RMS of ``dbfs``, with peaks below full scale."""
    gain = 10 ** (dbfs / 20) / (np.sqrt((wave**2).mean()) + 1e-9)
    return wave * min(gain, 0.97 / (np.abs(wave).max() + 1e-9))


def to_pcm(wave: np.ndarray) -> np.ndarray:
    """Convert to 16-bit samples; samples beyond full scale are scaled down, not clipped."""
    peak = np.abs(wave).max()
    return np.round((wave if peak <= 0.999 else wave / peak * 0.999) * 32767).astype("<i2")
