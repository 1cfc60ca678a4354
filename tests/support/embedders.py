"""Encoders of others, for evaluations that name them: ``support.embedders:Bands``."""

from __future__ import annotations

import numpy as np
import torch


class Bands:
    """Encoder that returns mean magnitudes of 64 bands of the spectrum; its rate is half that of the tests' clips."""

    sample_rate = 8_000
    version = "1"
    num_parameters = 64
    heard: list[np.ndarray] = []  # noqa: RUF012 - shared: tests look at the waves of all instances

    def embed(self, wave_BT: np.ndarray) -> torch.Tensor:
        self.heard.append(wave_BT)
        spectrum = torch.fft.rfft(torch.from_numpy(wave_BT)).abs() / wave_BT.shape[1]
        return torch.stack([band.mean(dim=1) for band in spectrum.tensor_split(64, dim=1)], dim=1)


class Unversioned:
    """Encoder without the required ``version``."""

    sample_rate = 16_000

    def embed(self, wave_BT: np.ndarray) -> np.ndarray:
        return wave_BT[:, :2]


class Frames(Unversioned):
    """Encoder that wrongly returns a vector for each frame."""

    version = "1"

    def embed(self, wave_BT: np.ndarray) -> np.ndarray:
        return np.zeros((*wave_BT.shape, 2))
