"""Vectors of whole clips that are kept: computed once for an encoder, a way of reading and a set of clips."""

from __future__ import annotations

import hashlib
import json
import logging

import numpy as np
import safetensors
import safetensors.numpy
import safetensors.torch

from unfused_ray import storage
from unfused_ray.config import Cut
from unfused_ray.data.shards import ClipIndex
from unfused_ray.embedding.clips import embed_clips
from unfused_ray.models.export import FrozenEncoder

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
"""Changes when the same encoder makes other vectors of the same clips."""


class EmbeddingCache:
    """A folder of vectors; a file is named by all that decides its content, so nothing in it is ever out of date.

    Args:
        uri: folder, by path or URI.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def layers(self, encoder: FrozenEncoder, index: ClipIndex) -> dict[Cut, np.ndarray]:
        """Every layer's vector of every clip, (N, size) float32 by clip_id; a damaged clip is a row of NaN.

        Vectors with such a row are not kept: the shard may be put right, which the clips' checksums would not show.

        Raises:
            ValueError, OSError: see :func:`embed_clips`.
        """
        path = storage.join(self.uri, f"{key(encoder, index)}.safetensors")
        if storage.exists(path):
            try:
                found = safetensors.numpy.load(storage.read_bytes(path))
                return {layer: found[layer] for layer in found}  # type: ignore[misc] # names of layers, as written below
            except safetensors.SafetensorError as error:
                logger.warning("%s is damaged and made again: %s", path, error)
        vectors = embed_clips(encoder, index, np.arange(index.num_clips))
        if all(np.isfinite(array).all() for array in vectors.values()):
            storage.write_bytes(path, safetensors.numpy.save({str(layer): array for layer, array in vectors.items()}))
        return vectors


def key(encoder: FrozenEncoder, index: ClipIndex) -> str:
    """Names the weights, the front end with its normalisation, the rule for short clips, and the clips."""
    weights = safetensors.torch.save({name: t.cpu().contiguous() for name, t in encoder.encoder.state_dict().items()})
    reading = {
        "format_version": FORMAT_VERSION,
        "encoder": encoder.encoder.config.model_dump(mode="json"),
        "front_end": encoder.log_mel.config.model_dump(mode="json"),
        "normalisation": [encoder.log_mel.mean, encoder.log_mel.std],
        "crop": encoder.crop.model_dump(mode="json"),
        "clips": index.checksums,
    }
    return hashlib.sha256(weights + json.dumps(reading, sort_keys=True).encode()).hexdigest()[:32]
