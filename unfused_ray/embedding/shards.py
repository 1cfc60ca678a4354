"""Embeds all clips of prepared sources, in parts that an executor runs: in this process, or on a cluster's GPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from unfused_ray.config import Readout
from unfused_ray.data.parts.executor import Executor
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.embedding.clips import embed_clips, read_out
from unfused_ray.models.frozen import FrozenEncoder

_CLIPS_PER_PART = 2000
"""Least number of clips in a part: a second or more of work, because the encoder is fetched for it."""


def embed_shards(
    encoder: FrozenEncoder,
    index: ClipIndex,
    readout: Readout,
    executor: Executor,
    tell: Callable[[int], object],
) -> np.ndarray:
    """Embed every clip of an index, by clip_id: (N, D) float32; a damaged clip is a row of NaN.

    Batches never span row groups, so the division into parts changes no bit of a vector.

    Args:
        encoder: computes the vectors, each part on a GPU if its process has one.
        index: the clips.
        readout: layers that make a vector.
        executor: runs the parts; it is open.
        tell: called after each part with the number of clips done.

    Raises:
        ValueError: the shards have another sample rate than the encoder.
        OSError: a shard is missing or its storage does not answer.
    """
    parts = list(_parts(index))
    vectors: dict[int, np.ndarray] = {}
    fetch = executor.share(encoder)
    with executor.run(_embed, ((fetch, index, part, readout) for part in parts)) as results:
        for number, embedded in results:
            vectors[number] = embedded
            tell(sum(map(len, vectors.values())))
    return np.concatenate([vectors[number] for number in range(len(parts))])


def _parts(index: ClipIndex) -> Iterator[range]:
    """Yield the clip_ids of consecutive row groups, enough of them in each part to be worth a call."""
    first = 0
    for unit in index.units:
        stop = unit.first_clip_id + unit.num_clips
        if stop - first >= _CLIPS_PER_PART or stop == index.num_clips:
            yield range(first, stop)
            first = stop


def _embed(fetch: Callable[[], FrozenEncoder], index: ClipIndex, clip_ids: range, readout: Readout) -> np.ndarray:
    encoder = fetch().to("cuda" if torch.cuda.is_available() else "cpu")
    vectors_ND = read_out(embed_clips(encoder, index, np.array(clip_ids)), encoder.encoder.config.cut, readout)
    if torch.cuda.is_available():  # Ray keeps this process, and training may follow on its GPU
        torch.cuda.empty_cache()
    return vectors_ND
