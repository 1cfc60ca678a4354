"""Embeds waves of any lengths in batches, and cuts windows that slide over a wave."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np
import torch

from unfused_ray.config import Cut
from unfused_ray.models.frozen import FrozenEncoder
from unfused_ray.models.precision import ieee_float32

_BATCH_FRAMES, _GPU_BATCH_FRAMES = 3072, 65_536
"""Spectrogram frames of a batch: 32 crops of 0.95 s, and 50 MB after the encoder's first convolution; on a GPU 683
crops, or 65 clips of 10 s, and 1.1 GB."""


def windows(num_samples: int, length: int, hop: int) -> list[tuple[int, int]]:
    """Return the first sample and the end of each window over a wave.

    A window starts every ``hop`` samples. If that leaves a rest, a last window ends with the wave; a wave no longer
    than a window is one window.

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
    """Embed waves in batches of equally many spectrogram frames: nothing is padded.

    Only a wave shorter than the encoder's crop is completed. A wave's vectors equal those of ``encoder.layers`` but for
    the last bits, which depend on its batch. Memory grows with the different lengths among the waves, not with their
    number. On a GPU, too, all is computed in IEEE float32.

    Args:
        encoder: computes the vectors, on its device.
        waves: pairs of the caller's number of a wave, and the wave, (samples,) int16 at the encoder's rate.

    Yields:
        A batch as it is full: numbers, and for every layer of the encoder, (B, its size) float32.
    """
    front_end = encoder.log_mel.config
    shortest = encoder.crop.num_samples(front_end.sample_rate)
    most = _GPU_BATCH_FRAMES if encoder.device.type == "cuda" else _BATCH_FRAMES
    waiting: dict[int, list[tuple[int, np.ndarray]]] = defaultdict(list)
    for number, wave in waves:
        num_frames = front_end.num_frames(max(len(wave), shortest))
        waiting[num_frames].append((number, wave))
        if (len(waiting[num_frames]) + 1) * num_frames > most:
            yield _embed(encoder, waiting.pop(num_frames))
    for batch in waiting.values():
        yield _embed(encoder, batch)


@torch.inference_mode()
@ieee_float32()
def _embed(encoder: FrozenEncoder, batch: Sequence[tuple[int, np.ndarray]]) -> tuple[list[int], dict[Cut, np.ndarray]]:
    sample_rate = encoder.log_mel.config.sample_rate
    numbers, waves = zip(*batch, strict=True)
    log_mels = [
        encoder.spectrogram(np.stack(list(equally_long)), sample_rate) for _, equally_long in groupby(waves, len)
    ]
    layers = encoder.encoder.layers(torch.cat(log_mels))
    return list(numbers), {layer: vectors.float().cpu().numpy() for layer, vectors in layers.items()}
