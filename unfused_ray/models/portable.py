"""An encoder with its front end in plain operations, for exports; this file needs only torch, and is copied into them.

It computes in float32, where the package computes a Fourier transform in float64. It uses only matrix products,
convolutions, pooling and gathers, which every runtime has.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYERS = ("block1", "block2", "block3", "fc1", "fc2")
"""Layers that a network may end with."""


class PortableEncoder(nn.Module):
    """Computes vectors of waveforms: log-mels, convolution blocks, layers per frame, maximum plus mean over time.

    It begins in evaluation mode; in training mode a clip's vector would depend on the other clips of its batch.

    Args:
        sample_rate: rate of the waveforms, in Hz.
        shortest: number of samples to which a shorter clip is completed.
        short_clips: how it is completed: "tile" repeats the clip, "centre" puts silence around it.
        n_fft, hop: length and step of the Fourier transform's window, in samples.
        num_mels: number of mel bands.
        floor: smallest power; lower ones are raised to it before the logarithm.
        mean, std: statistics that log-mels are normalised by.
        channels, width, cut: shape of the network, and its last layer.
    """

    window: Tensor
    filters: Tensor
    cos_a: Tensor
    sin_a: Tensor
    turn_cos: Tensor
    turn_sin: Tensor
    both_b: Tensor

    def __init__(
        self,
        *,
        sample_rate: int,
        shortest: int,
        short_clips: str,
        n_fft: int,
        hop: int,
        num_mels: int,
        floor: float,
        mean: float,
        std: float,
        channels: int,
        width: int,
        cut: str,
    ) -> None:
        super().__init__()
        if shortest <= n_fft // 2:
            raise ValueError(
                f"shortest={shortest} samples must exceed half a window, {n_fft // 2}: it is mirrored once"
            )
        self.sample_rate, self.shortest, self.tiles = sample_rate, shortest, short_clips == "tile"
        self.n_fft, self.hop, self.floor, self.mean, self.std = n_fft, hop, floor, mean, std
        depth = LAYERS.index(cut) + 1
        num_blocks = min(depth, 3)
        self.conv = nn.ModuleList(_block(1 if i == 0 else channels, channels) for i in range(num_blocks))
        bands = channels * num_mels // 2**num_blocks
        self.fc1 = nn.Linear(bands, width) if depth > 3 else None
        self.fc2 = nn.Linear(width, width) if depth > 4 else None
        self.register_buffer("window", torch.zeros(n_fft))
        self.register_buffer("filters", torch.zeros(n_fft // 2 + 1, num_mels))
        for name, matrix in _fourier_matrices(n_fft).items():
            self.register_buffer(name, matrix)
        self.eval()

    def forward(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """Return vectors of clips, (B, dim), and over time, (B, T', dim).

        ``wave``: (B, samples) float32 at the rate of the front end, in [-1, 1] as recorded: peaks are not normalised.

        Raises:
            ValueError: ``wave`` has another type, such as int16, or another number of dimensions.
        """
        dtype = self.window.dtype
        if not isinstance(wave, Tensor) or wave.dim() != 2 or wave.dtype != dtype:
            found = f"{getattr(wave, 'dtype', type(wave).__name__)} of shape {tuple(getattr(wave, 'shape', ()))}"
            raise ValueError(
                f"wave is {found}: give a tensor of {dtype}, (batch, samples), mono, in [-1, 1], at {self.sample_rate} "
                "Hz. Of one clip: torch.from_numpy(samples).float()[None]; divide samples of int16 by 2**15 before"
            )
        features = self.log_mel(wave).unsqueeze(1)
        for block in self.conv:
            features = block(features)
        frames = features.permute(0, 3, 2, 1).flatten(2)
        for layer in (self.fc1, self.fc2):
            if layer is not None:
                frames = F.relu(layer(frames))
        return frames.amax(1) + frames.mean(1), frames

    def log_mel(self, wave: Tensor) -> Tensor:
        """Compute the normalised log-mel spectrogram: (B, samples) → (B, num_mels, T)."""
        log_power = (self._powers(self._windows(wave)) @ self.filters).clamp(min=self.floor).log()
        return ((log_power - self.mean) / self.std).transpose(1, 2)

    def _windows(self, wave: Tensor) -> Tensor:
        """Cut the windows of the completed clip, which is mirrored at its ends: (B, samples) → (B, T, n_fft)."""
        num_samples = wave.shape[1]
        period = torch.full((), num_samples, device=wave.device)  # a tensor, because ONNX has no remainder of a number
        length: Any = torch.sym_max(num_samples, self.shortest)
        num_windows = (length - self.n_fft % 2) // self.hop + 1
        starts = torch.arange(num_windows, device=wave.device) * self.hop - self.n_fft // 2
        place = (starts[:, None] + torch.arange(self.n_fft, device=wave.device)).abs()
        place = length - 1 - (length - 1 - place).abs()
        if self.tiles:
            return wave[:, place % period] * self.window
        place = place - (length - num_samples) // 2
        inside = (place >= 0) & (place < num_samples)
        return wave[:, place % period] * (inside * self.window)

    def _powers(self, windows: Tensor) -> Tensor:
        """Compute squared magnitudes of the Fourier transform: (B, T, n_fft) → (B, T, n_fft // 2 + 1).

        A transform of a·b samples is made in two steps (Cooley and Tukey, 1965): one of length a, a rotation, one of
        length b.
        """
        grid = windows.unflatten(2, (self.cos_a.shape[0], -1))
        real, imaginary = self.cos_a @ grid, self.sin_a @ grid
        turned = [real * self.turn_cos - imaginary * self.turn_sin, real * self.turn_sin + imaginary * self.turn_cos]
        real, imaginary = (torch.cat(turned, dim=3) @ self.both_b).chunk(2, dim=3)
        powers = real.square() + imaginary.square()
        return powers.transpose(2, 3).flatten(2)[..., : self.n_fft // 2 + 1]


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.MaxPool2d(2), nn.ReLU())


def _fourier_matrices(n_fft: int) -> dict[str, Tensor]:
    """Make the matrices of a Fourier transform in two steps; sample b·i + j is at row i and column j of a grid of a ×
    b."""
    a = max(divisor for divisor in range(1, math.isqrt(n_fft) + 1) if n_fft % divisor == 0)
    b = n_fft // a

    def turns(rows: int, columns: int, period: int) -> tuple[Tensor, Tensor]:
        angles = torch.outer(torch.arange(rows), torch.arange(columns)) % period * (-2 * math.pi / period)
        return angles.double().cos(), angles.double().sin()

    (cos_a, sin_a), (turn_cos, turn_sin), (cos_b, sin_b) = turns(a, a, a), turns(a, b, n_fft), turns(b, b // 2 + 1, b)
    both_b = torch.cat([torch.cat([cos_b, sin_b], dim=1), torch.cat([-sin_b, cos_b], dim=1)])
    matrices = {"cos_a": cos_a, "sin_a": sin_a, "turn_cos": turn_cos, "turn_sin": turn_sin, "both_b": both_b}
    return {name: matrix.float() for name, matrix in matrices.items()}
