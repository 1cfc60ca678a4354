"""Computes log-mel spectrograms of waveforms, batched on their device."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from unfused_ray.config import FrontEndConfig

_INT16_SCALE = 2.0**-15
_CLIPS_AT_A_TIME = 4


class LogMel(nn.Module):
    """Natural logarithm of mel-band powers, normalised: ``(log(max(power, floor)) - mean) / std``.

    librosa's mel spectrogram (power 2, periodic Hann window, centred frames, reflected ends, Slaney scale and norm)
    to within 1e-4. The powers are clamped rather than offset by ``floor``, so that digital silence has one value and
    everything above it is exact. The module has no state to save: it follows from its arguments.

    Args:
        config: the front end.
        mean, std: statistics of the log-mel values to normalise by; without them the values are plain logarithms.

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
        # Each row twice: real and imaginary parts lie side by side, and the product adds their squares.
        filters = mel_filters(config).repeat_interleave(2, dim=0)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """Log-mel of ``wave``: (B, samples), int16 or float32 in [-1, 1] → (B, num_mels, frames) float32.

        ``frames`` is ``samples // hop + 1``. Autocast is off, because powers span more than bfloat16 resolves.

        Raises:
            ValueError: ``wave`` is not (B, samples) or not int16 or float32.
        """
        if wave.ndim != 2 or wave.dtype not in (torch.int16, torch.float32) or wave.shape[1] == 0:
            raise ValueError(
                f"wave has shape {tuple(wave.shape)} and type {wave.dtype}: give (batch, samples), int16 or float32"
            )
        # A CPU takes few clips at a time: the frames of a whole block overflow its caches (2 to 3 times slower).
        parts = wave.split(_CLIPS_AT_A_TIME) if wave.device.type == "cpu" else [wave]
        with torch.autocast(wave.device.type, enabled=False):
            log_power = torch.cat([self._log_power(part) for part in parts])
            return ((log_power - self.mean) / self.std).transpose(1, 2)

    def _log_power(self, wave: Tensor) -> Tensor:
        """Return the logarithm of the mel-band powers, (B, frames, num_mels)."""
        # The transform in double precision, as librosa's: in single precision the quiet bands of a loud frame are
        # off by up to 1e-3.
        wave = self._reflect(wave).double() * (_INT16_SCALE if wave.dtype == torch.int16 else 1.0)
        spectrum = torch.fft.rfft(wave.unfold(-1, self.config.n_fft, self.config.hop) * self.window)
        squares = torch.view_as_real(spectrum).float().square_().flatten(-2)
        return (squares @ self.filters).clamp_min_(self.config.floor).log_()

    def _reflect(self, wave: Tensor) -> Tensor:
        """Continue ``wave`` by half a window at both ends by reflection, as often as a short one needs."""
        num_samples, half = wave.shape[1], self.config.n_fft // 2
        period = max(2 * (num_samples - 1), 1)
        index = torch.arange(-half, num_samples + half, device=wave.device) % period
        return wave[:, torch.minimum(index, period - index)]


def mel_filters(config: FrontEndConfig) -> Tensor:
    """Triangular filters on the Slaney scale with Slaney normalisation: (n_fft // 2 + 1, num_mels) float32.

    A filter's area over frequency is 1 (in Hz), so that white noise has equal power in all bands.
    """
    return melscale_fbanks(
        config.n_fft // 2 + 1,
        config.f_min,
        config.f_max,
        config.num_mels,
        config.sample_rate,
        norm="slaney",
        mel_scale="slaney",
    )
