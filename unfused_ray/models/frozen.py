"""A trained encoder for use: from waveforms to vectors, with the front end and short-clip rule of its training."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfused_ray.audio.arrays import mono_batch, refuse_rate
from unfused_ray.audio.crop import complete
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import CropConfig, Cut
from unfused_ray.models.encoder import AudioNTT2020


class Frames(NamedTuple):
    """Vectors over time."""

    vectors: Tensor
    """(B, T', dim) float32."""
    times: Tensor
    """(T',) float32, ms from the start of the clip to the centre of the frames that each vector was pooled from."""


class FrozenEncoder(nn.Module):
    """An encoder in evaluation mode with the front end it was trained with; from waveform to vectors.

    It freezes the encoder it is given. ``to(device)`` moves both; results are on that device. ``details`` holds the
    export's record of its origin.
    """

    def __init__(
        self, encoder: AudioNTT2020, log_mel: LogMel, crop: CropConfig, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.log_mel = log_mel
        self.crop = crop
        self.details = details or {}
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, also as a part of a module that is trained: a vector depends on its clip alone."""
        return super().train(False)

    @property
    def sampling_rate(self) -> int:
        """Rate of the waveforms that :meth:`forward` takes, in Hz."""
        return self.log_mel.config.sample_rate

    @property
    def device(self) -> torch.device:
        """Device that the vectors are computed on."""
        return self.log_mel.window.device

    @property
    def output_dim(self) -> int:
        """Size of a vector, whether of a clip or of a frame."""
        return self.encoder.dim

    @property
    def shortest(self) -> int:
        """Number of samples to which a shorter clip is completed."""
        return self.crop.num_samples(self.sampling_rate)

    @property
    def frame_hop_ms(self) -> float:
        """Milliseconds from one vector of :meth:`frames` to the next; with ``half_hop``, half of this."""
        return self.encoder.frame_step * self._ms_per_frame

    @property
    def frame_first_ms(self) -> float:
        """Time of the first vector of :meth:`frames` in milliseconds, if no silence is put before the clip."""
        return (self.encoder.frame_step - 1) / 2 * self._ms_per_frame

    @property
    def _ms_per_frame(self) -> float:
        return 1000 * self.log_mel.config.hop / self.sampling_rate

    def forward(self, wave: np.ndarray | Tensor) -> Tensor:
        """Return one vector per clip, like :meth:`embed`, for waveforms at ``sampling_rate``."""
        return self.embed(wave, self.sampling_rate)

    def embed(self, wave: np.ndarray | Tensor, sample_rate: int) -> Tensor:
        """Return one vector per clip, (B, dim) float32: maximum plus mean over the whole clip.

        Args:
            wave: mono, (samples,) or (B, samples): floating point in [-1, 1], or integers, as an array or a tensor
                (converted by :func:`~unfused_ray.audio.arrays.mono_batch`). Average the channels of a recording first,
                because two axes are always a batch. (samples, channels), the order of ``soundfile.read``, is refused;
                (channels, samples), the order of torchaudio, cannot be distinguished from a batch and is embedded as
                one, channel by channel. A clip shorter than the training's crop is completed as in training.
            sample_rate: rate of ``wave``, in Hz; the wave is resampled if the front end has another.

        Raises:
            ValueError: ``wave`` has another type or shape, is empty or not finite, or its scale cannot be known; or
                ``sample_rate`` is no number of Hz. The message says what to do.
        """
        return self.encoder(self.spectrogram(wave, sample_rate))

    def frames(
        self, wave: np.ndarray | Tensor, sample_rate: int, *, half_hop: bool = False, cover_end: bool = False
    ) -> Frames:
        """Return vectors over time, one for each 8 hops of the front end (80 ms by default), with their times.

        A vector is pooled from 8 frames of the spectrogram. The first frame is centred at the beginning of the clip, so
        the first time is 35 ms. Times refer to the clip as given, even if it is too short and silence is put around it.

        Args:
            wave: waveform, as in :meth:`embed`.
            sample_rate: rate of ``wave``, in Hz.
            half_hop: return twice as many vectors, every 40 ms; the encoder runs a second time, half a hop later.
            cover_end: mirror the end of the spectrogram to whole hops; otherwise up to 7 of its last frames are in no
                vector.

        Raises:
            ValueError: as in :meth:`embed`.
        """
        mono_BS = self._resampled(wave, sample_rate)
        log_mel_BFT = self._log_mel(mono_BS)
        step = self.encoder.frame_step
        if cover_end:
            log_mel_BFT = F.pad(log_mel_BFT, (0, -log_mel_BFT.shape[2] % step), mode="reflect")
        vectors_BTD = self._frames(log_mel_BFT)
        centres = step * torch.arange(vectors_BTD.shape[1]) + (step - 1) / 2
        if half_hop:
            # Mirrored at the beginning, because convolutions would see silence at a cut; the first vector is dropped.
            later_BTD = self._frames(F.pad(log_mel_BFT, (step // 2, 0), mode="reflect"))[:, 1:]
            between = step * torch.arange(later_BTD.shape[1]) + step - 0.5
            centres, order = torch.cat([centres, between]).sort()
            vectors_BTD = torch.cat([vectors_BTD, later_BTD], dim=1)[:, order]
        samples = centres * self.log_mel.config.hop
        if self.crop.short_clips == "centre":
            samples -= max(0, self.shortest - mono_BS.shape[1]) // 2
        return Frames(vectors_BTD, (samples * (1000 / self.sampling_rate)).to(vectors_BTD.device))

    def layers(self, wave: np.ndarray | Tensor, sample_rate: int) -> dict[Cut, Tensor]:
        """Return every layer's vector of a clip, (B, that layer's size) float32: maximum plus mean over the whole clip.

        Arguments and errors are those of ``embed``.
        """
        return self.encoder.layers(self.spectrogram(wave, sample_rate))

    def spectrogram(self, wave: np.ndarray | Tensor, sample_rate: int) -> Tensor:
        """Return normalised log-mels, (B, num_mels, T) float32, the encoder's input.

        Arguments and errors are those of ``embed``.
        """
        return self._log_mel(self._resampled(wave, sample_rate))

    def _resampled(self, wave: np.ndarray | Tensor, sample_rate: int) -> np.ndarray:
        """Return (B, samples) float32 at the rate of the front end."""
        refuse_rate(sample_rate)
        mono_BS = mono_batch(wave)
        if sample_rate != self.sampling_rate:
            import soxr  # here: benchmarks/gpu embeds on machines with little but torch

            mono_BS = soxr.resample(mono_BS.T, sample_rate, self.sampling_rate).T
            if not mono_BS.size:
                raise ValueError(
                    f"wave has so few samples at {sample_rate} Hz that none is left at {self.sampling_rate} Hz"
                )
        return mono_BS

    def _log_mel(self, mono_BS: np.ndarray) -> Tensor:
        if mono_BS.shape[1] < self.shortest:  # batches of longer clips are not copied
            mono_BS = np.stack([complete(clip, self.shortest, self.crop.short_clips) for clip in mono_BS])
        return self.log_mel(torch.from_numpy(np.ascontiguousarray(mono_BS)).to(self.device))

    def _frames(self, log_mel_BFT: Tensor) -> Tensor:
        return self.encoder.frames(self.encoder.hidden(self.encoder.blocks(log_mel_BFT)[-1]))
