"""Computes log-mel spectrograms of waveforms, batched on their device."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from unfused_ray.config import FrontEndConfig

_INT16_SCALE = 2.0**-15
_CLIPS_AT_A_TIME = 4
# Slaney's mel scale (Auditory Toolbox, 1998): hertz per mel up to 1 kHz, and the step of the logarithm above.
_KNEE, _LINEAR, _LOG_STEP = 1000.0, 200 / 3, math.log(6.4) / 27


class LogMel(nn.Module):
    """Natural logarithm of mel-band powers, normalised: ``(log(max(power, floor)) - mean) / std``.

    Equals librosa's mel spectrogram (power 2, periodic Hann window, centred frames, reflected ends, Slaney scale and
    norm) to within 1e-4. The powers are clamped to ``floor`` rather than offset by it, so that digital silence has one
    value and everything above it is exact. The module has no state to save: it follows from its arguments.

    Args:
        config: the front end.
        mean, std: statistics of the log-mel values, for normalisation; by default the values are plain logarithms.

    Source: BYOL-A, arXiv 2103.06695 sec. IV; settings as in the LAPE code.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, config: FrontEndConfig, mean: float = 0.0, std: float = 1.0) -> None:
        super().__init__()
        if not std > 0:
            raise ValueError(f"std={std} of the log-mel values must be positive: the data is constant or silent")
        self.config = config
        self.mean = mean
        self.std = std
        self.register_buffer("window", torch.hann_window(config.n_fft, dtype=torch.float64), persistent=False)
        # Each row twice: real and imaginary parts are adjacent, and the product adds their squares.
        filters = mel_filters(config).repeat_interleave(2, dim=0)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """Return the log-mel of ``wave``: (B, samples), int16 or float32 in [-1, 1] → (B, num_mels, frames) float32.

        ``frames`` is ``config.num_frames(samples)``. Autocast is off, because powers span more than bfloat16 resolves.

        Raises:
            ValueError: ``wave`` is not (B, samples) or not int16 or float32.
        """
        if wave.ndim != 2 or wave.dtype not in (torch.int16, torch.float32) or wave.shape[1] == 0:
            raise ValueError(
                f"wave has shape {tuple(wave.shape)} and type {wave.dtype}: give (batch, samples), int16 or float32"
            )
        # A few clips at a time on a CPU: the frames of a whole block overflow its caches (2 to 3 times slower).
        parts = wave.split(_CLIPS_AT_A_TIME) if wave.device.type == "cpu" else [wave]
        with torch.autocast(wave.device.type, enabled=False):
            log_power = torch.cat([self._log_power(part) for part in parts])
            return ((log_power - self.mean) / self.std).transpose(1, 2)

    def _log_power(self, wave: Tensor) -> Tensor:
        """Return the logarithm of the mel-band powers, (B, frames, num_mels)."""
        # The transform is in double precision, as in librosa: in single precision the quiet bands of a loud frame are
        # off by up to 1e-3.
        scale = _INT16_SCALE if wave.dtype == torch.int16 else 1.0
        wave = self._reflect(wave).double().mul_(scale)
        spectrum = torch.fft.rfft(wave.unfold(-1, self.config.n_fft, self.config.hop) * self.window)
        squares = torch.view_as_real(spectrum).float().square_().flatten(-2)
        return (squares @ self.filters).clamp_min_(self.config.floor).log_()

    def _reflect(self, wave: Tensor) -> Tensor:
        """Extend ``wave`` by half a window at both ends by reflection, repeatedly if the wave is short."""
        num_samples, half = wave.shape[1], self.config.n_fft // 2
        if num_samples > half:  # mirrored once: three copies; picking every sample takes ten times as long
            return torch.cat([wave[:, 1 : half + 1].flip(1), wave, wave[:, -half - 1 : -1].flip(1)], dim=1)
        period = max(2 * (num_samples - 1), 1)
        index = torch.arange(-half, num_samples + half, device=wave.device) % period
        return wave[:, torch.minimum(index, period - index)]


def mel_filters(config: FrontEndConfig) -> Tensor:
    """Return triangular filters on the Slaney scale with Slaney normalisation: (n_fft // 2 + 1, num_mels) float32.

    A filter's area over frequency in Hz is 1, so that white noise has equal power in all bands. The values are those of
    torchaudio, bit by bit, if sample rate and n_fft are even; it misplaces the bins of odd ones.
    """
    highest = config.n_fft // 2
    frequencies_F = torch.linspace(0, highest * config.sample_rate / config.n_fft, highest + 1)
    edges = _to_hertz(torch.linspace(_to_mel(config.f_min), _to_mel(config.f_max), config.num_mels + 2))
    slopes = edges - frequencies_F[:, None]
    widths = edges[1:] - edges[:-1]
    falling, rising = slopes[:, 2:] / widths[1:], -slopes[:, :-2] / widths[:-1]
    return torch.minimum(rising, falling).clamp_min(0) * (2 / (edges[2:] - edges[:-2]))


def _to_mel(hertz: float) -> float:
    """Convert to the Slaney scale: linear below 1 kHz, logarithmic above."""
    return hertz / _LINEAR if hertz < _KNEE else _KNEE / _LINEAR + math.log(hertz / _KNEE) / _LOG_STEP


def _to_hertz(mels: Tensor) -> Tensor:
    knee = _KNEE / _LINEAR
    return torch.where(mels < knee, mels * _LINEAR, _KNEE * torch.exp((mels - knee) * _LOG_STEP))
