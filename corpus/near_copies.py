"""Finds clips of one recording: in other files, at another level, re-encoded or cut slightly differently."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from corpus.audio import SAMPLE_RATE
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import FrontEndConfig

MOST_DB = 3.0
"""Clips whose fingerprints differ by less than this, as root mean square in dB, are near-copies."""
SAME_WAVE = 0.995
"""Least correlation of two waveforms that differ only in gain."""
_BANDS, _FRAMES, _HOPS = 32, 24, 4  # size of a fingerprint: 0.96 s in frames of 40 ms
_RANGE_DB, _STEPS = 60.0, 4  # range below the loudest cell, in quarters of a dB
_ONSET_DB = 25.0  # below the loudest frame: the fingerprint begins there, whatever hiss precedes it
FINGERPRINT_SIZE = _BANDS * _FRAMES
_ROWS = 512  # rows of the matrix of distances at a time


class Fingerprinter:
    """Computes fingerprints: log-mel levels of a clip's first second, relative to its loudest cell."""

    def __init__(self) -> None:
        self._log_mel = LogMel(FrontEndConfig())

    def __call__(self, pcm: np.ndarray) -> np.ndarray:
        """Return (768,) uint8 for (samples,) int16: 32 bands of 24 frames, in quarters of a dB above -60 dB."""
        longest = (_FRAMES * _HOPS * 4) * SAMPLE_RATE // 100
        wave = pcm[None, :longest].astype(np.float32)
        wave /= np.abs(wave).max() + 1e-9  # because the front end's floor is absolute
        power_FB = np.exp(self._log_mel(torch.from_numpy(wave))[0].T.double().numpy())
        power_FB = power_FB.reshape(len(power_FB), _BANDS, -1).mean(2)
        level_F = 10 * np.log10(power_FB.sum(1) + 1e-12)
        onset = int(np.argmax(level_F > level_F.max() - _ONSET_DB))
        power_FB = power_FB[onset : onset + _FRAMES * _HOPS]
        padded_FB = np.zeros((_FRAMES * _HOPS, _BANDS))
        padded_FB[: len(power_FB)] = power_FB
        level_db = 10 * np.log10(padded_FB.reshape(_FRAMES, _HOPS, _BANDS).mean(1) + 1e-12)
        relative = np.clip(level_db - level_db.max() + _RANGE_DB, 0, _RANGE_DB)
        return np.round(relative * _STEPS).astype(np.uint8).ravel()


def near_pairs(
    first_NF: np.ndarray, second_MF: np.ndarray, most_db: float = MOST_DB
) -> Iterator[tuple[int, int, float]]:
    """Yield the near-copies in two sets of fingerprints: (row of first, row of second, difference in dB).

    The difference is the root mean square over as many cells as the clip with more cells above the floor has, so that
    the silence after two short clips does not make them more alike.
    """
    second_MF = second_MF.astype(np.float32)
    squares_M, active_M = (second_MF**2).sum(1), (second_MF > 0).sum(1)
    for start in range(0, len(first_NF), _ROWS):
        part_NF = first_NF[start : start + _ROWS].astype(np.float32)
        active_NM = np.maximum((part_NF > 0).sum(1)[:, None], active_M)
        squares_NM = (part_NF**2).sum(1)[:, None] + squares_M - 2 * part_NF @ second_MF.T
        difference_NM = np.sqrt(np.maximum(squares_NM, 0) / np.maximum(active_NM, 1)) / _STEPS
        for row, column in zip(*np.nonzero(difference_NM < most_db), strict=True):
            yield start + int(row), int(column), float(difference_NM[row, column])


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return the correlation of two waveforms over their common first second: 1 if they differ only in gain."""
    length = min(len(first), len(second), SAMPLE_RATE)
    a, b = (wave[:length].astype(np.float64) for wave in (first, second))
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-9))


def best_correlation(first: np.ndarray, second: np.ndarray, milliseconds: float = 50.0) -> float:
    """Return the largest |correlation| of two waveforms' first second, with one shifted by up to ``milliseconds``."""
    a, b = (wave[:SAMPLE_RATE].astype(np.float64) for wave in (first, second))
    size = 2 * SAMPLE_RATE
    products = np.fft.irfft(np.fft.rfft(a, size) * np.conj(np.fft.rfft(b, size)), size)
    lag = int(milliseconds * SAMPLE_RATE / 1000)
    near = np.concatenate([products[: lag + 1], products[-lag:]])
    return float(np.abs(near).max() / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-9))
