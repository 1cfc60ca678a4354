"""Encoders that are not ours, as evaluations name them: ``support.embedders:Bands``."""

from __future__ import annotations

import numpy as np
import torch


class Bands:
    """Mean magnitudes of 64 bands of the spectrum, at half the rate of the tests' clips."""

    sample_rate = 8_000
    version = "1"
    num_parameters = 64
    heard: list[np.ndarray] = []  # noqa: RUF012 - what all of them were given, for tests to look at

    def embed(self, wave_BT: np.ndarray) -> torch.Tensor:
        self.heard.append(wave_BT)
        spectrum = torch.fft.rfft(torch.from_numpy(wave_BT)).abs() / wave_BT.shape[1]
        return torch.stack([band.mean(dim=1) for band in spectrum.tensor_split(64, dim=1)], dim=1)


class Unversioned:
    """Has all but a version."""

    sample_rate = 16_000

    def embed(self, wave_BT: np.ndarray) -> np.ndarray:
        return wave_BT[:, :2]


class Frames(Unversioned):
    """Gives a vector a frame."""

    version = "1"

    def embed(self, wave_BT: np.ndarray) -> np.ndarray:
        return np.zeros((*wave_BT.shape, 2))
