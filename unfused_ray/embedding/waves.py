"""Embeds waves of any lengths in batches, and cuts sliding windows from a wave."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from unfused_ray.audio.crop import complete
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import CropConfig, Cut
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.models.frozen import FrozenEncoder
from unfused_ray.models.precision import ieee_float32

_BATCH_FRAMES, _GPU_BATCH_FRAMES = 3072, 65_536
"""Spectrogram frames per batch. On a CPU: 32 crops of 0.95 s, and 50 MB after the encoder's first convolution. On a
GPU: 683 crops, or 65 clips of 10 s, and 1.1 GB."""


def windows(num_samples: int, length: int, hop: int) -> list[tuple[int, int]]:
    """Return the first sample and the end of each window of a wave.

    A window starts every ``hop`` samples. If samples remain, a last window ends with the wave; a wave no longer than a
    window is one window.

    Args:
        num_samples: samples of the wave, at least 1.
        length: samples of a window; 0 is the whole wave.
        hop: samples from the start of one window to the next, at least 1.
    """
    if not length or num_samples <= length:
        return [(0, num_samples)]
    starts = list(range(0, num_samples - length + 1, hop))
    if starts[-1] + length < num_samples:
        starts.append(num_samples - length)
    return [(start, start + length) for start in starts]


def embed_waves(
    encoder: FrozenEncoder, waves: Iterable[tuple[int, np.ndarray]]
) -> Iterator[tuple[list[int], dict[Cut, np.ndarray]]]:
    """Embed waves in batches.

    A wave's vectors equal those of ``encoder.layers`` except in the last bits, which depend on its batch. Everything is
    computed in IEEE float32, also on a GPU.

    Args:
        encoder: computes the vectors, on its device.
        waves: as for :func:`spectrograms`, at the encoder's rate.

    Yields:
        A batch as soon as it is full: numbers, and for every layer of the encoder, (B, its size) float32.
    """
    for numbers, log_mels_BFT in spectrograms(encoder.log_mel, encoder.crop, waves):
        yield numbers, embed_spectrograms(encoder.encoder, log_mels_BFT)


def spectrograms(
    log_mel: LogMel, crop: CropConfig, waves: Iterable[tuple[int, np.ndarray]]
) -> Iterator[tuple[list[int], Tensor]]:
    """Compute log-mels of waves of any lengths, in batches with equal numbers of frames: nothing is padded.

    Only a wave shorter than the crop is completed. Memory grows with the number of different lengths, not with the
    number of waves.

    Args:
        log_mel: the front end, on the device on which the batches are made.
        crop: the shortest length of a wave, and the rule that completes shorter ones.
        waves: pairs of a number, given by the caller, and a wave, (samples,) int16 at the front end's rate.

    Yields:
        A batch as soon as it is full: numbers, and (B, num_mels, T) float32.
    """
    front_end = log_mel.config
    shortest = crop.num_samples(front_end.sample_rate)
    most = _GPU_BATCH_FRAMES if log_mel.window.device.type == "cuda" else _BATCH_FRAMES
    waiting: dict[int, list[tuple[int, np.ndarray]]] = defaultdict(list)
    for number, wave in waves:
        whole = complete(wave, shortest, crop.short_clips)
        num_frames = front_end.num_frames(len(whole))
        waiting[num_frames].append((number, whole))
        if (len(waiting[num_frames]) + 1) * num_frames > most:
            yield _log_mels(log_mel, waiting.pop(num_frames))
    for batch in waiting.values():
        yield _log_mels(log_mel, batch)


@torch.inference_mode()
@ieee_float32()
def embed_spectrograms(encoder: AudioNTT2020, log_mels_BFT: Tensor) -> dict[Cut, np.ndarray]:
    """Return every layer's vectors of some log-mels, (B, that layer's size) float32, in IEEE float32."""
    return {layer: vectors.float().cpu().numpy() for layer, vectors in encoder.layers(log_mels_BFT).items()}


@torch.inference_mode()
@ieee_float32()
def _log_mels(log_mel: LogMel, batch: Sequence[tuple[int, np.ndarray]]) -> tuple[list[int], Tensor]:
    numbers, waves = zip(*batch, strict=True)
    device = log_mel.window.device
    parts = [torch.from_numpy(np.stack(list(equally_long))).to(device) for _, equally_long in groupby(waves, len)]
    return list(numbers), torch.cat([log_mel(part) for part in parts])
