"""Decodes and embeds whole clips of shards."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import numpy as np

from unfused_ray.audio.decode import AudioError, read_flac
from unfused_ray.config import Cut, Readout
from unfused_ray.data.shards.format import refuse_other_rate
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.data.stream.read import read_unit_if_whole
from unfused_ray.embedding.waves import embed_waves
from unfused_ray.models.encoder import LAYERS
from unfused_ray.models.frozen import FrozenEncoder

logger = logging.getLogger(__name__)


def read_clips(index: ClipIndex, clip_ids: np.ndarray) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Decode some clips, one row group at a time; each row group is read once.

    A damaged clip is left out with a warning.

    Args:
        index: the clips.
        clip_ids: (N,) int64, in any order.

    Yields:
        Pairs of a position in ``clip_ids`` and the whole clip, (samples,) int16.

    Raises:
        ValueError: an id has no clip.
        OSError: a shard is missing or its storage does not answer.
    """
    if len(clip_ids) and not (clip_ids.min() >= 0 and clip_ids.max() < index.num_clips):
        raise ValueError(
            f"clip_ids from {clip_ids.min()} to {clip_ids.max()} must lie in 0 … {index.num_clips - 1}, the clips of "
            f"{', '.join(manifest.uri for manifest in index.manifests)}"
        )
    firsts = [unit.first_clip_id for unit in index.units]
    owners = np.searchsorted(firsts, clip_ids, side="right") - 1
    for owner in np.unique(owners):
        unit = index.units[owner]
        table = read_unit_if_whole(unit, ("audio", "num_samples"))
        if table is None:
            continue
        clips = []
        for position in np.flatnonzero(owners == owner).tolist():
            row = int(clip_ids[position]) - unit.first_clip_id
            try:
                wave = read_flac(table["audio"][row].as_buffer(), 0, table["num_samples"][row].as_py())
            except AudioError as error:
                logger.warning("clip %d, in %s, is damaged and left out: %s", clip_ids[position], unit.uri, error)
                continue
            clips.append((position, wave))
        yield clips


def embed_clips(encoder: FrozenEncoder, index: ClipIndex, clip_ids: np.ndarray) -> dict[Cut, np.ndarray]:
    """Embed whole clips, each in one pass: (N,) int64 → for every layer of the encoder, (N, its size) float32.

    Clips of a row group with equally many spectrogram frames form batches. Nothing is padded: only a clip shorter than
    the encoder's crop is completed. A damaged clip is a row of NaN.

    Args:
        encoder: computes the vectors, on its device.
        index: the clips.
        clip_ids: clips to embed, in any order.

    Raises:
        ValueError: the shards have another sample rate than the encoder, or an id has no clip.
        OSError: a shard is missing or its storage does not answer.
    """
    sample_rate = encoder.log_mel.config.sample_rate
    refuse_other_rate(index.manifests, sample_rate)
    sizes = {layer: vector.shape[1] for layer, vector in encoder.layers(np.zeros(sample_rate), sample_rate).items()}
    embeddings = {layer: np.full((len(clip_ids), size), np.nan, np.float32) for layer, size in sizes.items()}
    for clips in read_clips(index, clip_ids):
        for positions, layers in embed_waves(encoder, clips):
            for layer, vectors in layers.items():
                embeddings[layer][positions] = vectors
    return embeddings


def read_out(layers: Mapping[Cut, np.ndarray], cut: Cut, readout: Readout) -> np.ndarray:
    """Concatenate layers into the vectors of a readout, (N, D): the last layer, all blocks, or both.

    Args:
        layers: vectors of at least every layer up to ``cut``, (N, size) each.
        cut: last layer of the network.
        readout: which layers to concatenate.
    """
    blocks = [layer for layer in LAYERS[: LAYERS.index(cut) + 1] if layer.startswith("block")]
    chosen = {"last": [cut], "blocks": blocks, "both": [*blocks, *([] if cut in blocks else [cut])]}[readout]
    return np.concatenate([layers[layer] for layer in chosen], axis=1)
