"""Caches the vectors of whole clips, computed once per encoder, front end and set of clips."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import safetensors.torch
import torch

from unfused_ray import storage
from unfused_ray.config import Cut, Readout
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.embedding.clips import embed_clips, read_out
from unfused_ray.models.frozen import FrozenEncoder

logger = logging.getLogger(__name__)

Embed = Callable[[np.ndarray], Mapping[Any, np.ndarray]]
"""Computes the vectors of some clips: (N,) int64 clip_ids → (N, D) float32 of each layer, by layer name."""

FORMAT_VERSION = 1
"""Must change whenever the same encoder makes different vectors of the same clips."""
CLIPS_PER_PART = 4096
"""Clips per file: 130 MB for the five layers of AudioNTT2020."""


class EmbeddingCache:
    """A folder of vectors. Each folder in it is named by all that decides its content, so nothing goes stale.

    All kinds of devices compute in IEEE float32, but each adds in its own order, so their vectors differ in the last
    bits and are stored separately. If torch sees a GPU, the GPU computes the vectors. A process that receives such a
    cache but sees no GPU reads the stored vectors, computes missing ones itself with a warning, and does not store
    them.

    Args:
        uri: folder of the cache, by path or URI.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.device = _kind_here()
        """Kind of the device that computed the vectors: "cuda" or "cpu"."""

    def vectors(self, encoder: FrozenEncoder, index: ClipIndex) -> KeptVectors:
        """Return an encoder's vectors of all clips; compute missing ones here, on all threads of the caller.

        Raises:
            ValueError: the shards have another sample rate than the encoder.
            OSError: a shard is missing, or its storage does not answer.
        """
        return self._made(key(encoder, index, self.device), index, lambda: encoder)

    def vectors_of(self, inputs: Mapping[str, Any], index: ClipIndex, make: Callable[[], FrozenEncoder]) -> KeptVectors:
        """Return the vectors of an encoder that is defined by its inputs, and made only if vectors are missing.

        Args:
            inputs: everything that decides the encoder, as JSON values.
            index: the clips.
            make: makes the encoder.
        """
        reading = {"inputs": inputs, "format_version": FORMAT_VERSION, "device": self.device, "clips": index.checksums}
        return self._made(storage.sha256(json.dumps(reading, sort_keys=True).encode())[:32], index, cache(make))

    def kept(self, key: str, index: ClipIndex, embed: Embed) -> KeptVectors:
        """Return a function's vectors of all clips; compute missing ones here.

        Args:
            key: name for everything that decides the vectors, including the kind of device.
            index: the clips.
            embed: computes the vectors of some clips, on the device at hand.
        """
        found = KeptVectors(storage.join(self.uri, key), index, embed, keeps=_kind_here() == self.device)
        found.make()
        return found

    def _made(self, key: str, index: ClipIndex, make: Callable[[], FrozenEncoder]) -> KeptVectors:
        def embed(clip_ids: np.ndarray) -> Mapping[Any, np.ndarray]:
            return embed_clips(make().to(_kind_here()), index, clip_ids)

        return self.kept(key, index, embed)


def _kind_here() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


class KeptVectors:
    """Every layer's vectors of all clips of an index, stored part by part.

    Only the requested layers are in memory. An interrupted computation resumes after its last part.

    Args:
        uri: folder of the parts.
        index: the clips.
        embed: computes the vectors of some clips.
        keeps: False if vectors computed here must not be stored.
    """

    def __init__(self, uri: str, index: ClipIndex, embed: Embed, keeps: bool) -> None:
        self._uri, self._index, self._embed, self._keeps = uri, index, embed, keeps
        self._unkept: dict[int, dict[str, np.ndarray]] = {}

    def make(self) -> None:
        """Compute the missing parts, and recompute those with a damaged clip: the shard may have been repaired
        since."""
        for first in range(0, self._index.num_clips, CLIPS_PER_PART):
            whole, damaged = self._paths(first)
            if not storage.exists(whole) and (self._keeps or not storage.exists(damaged)):
                self._compute(first)

    def read(self, cut: Cut, readout: Readout) -> np.ndarray:
        """Return the readout of the network up to ``cut``: (N, D) float32 by clip_id; a damaged clip is a row of NaN.

        Raises:
            ValueError: the shards have another sample rate than the encoder.
            OSError: a shard is missing, or its storage does not answer.
        """
        return self._rows(lambda layers: read_out(layers, cut, readout))

    def layer(self, name: str) -> np.ndarray:
        """Return one layer: (N, D) float32 by clip_id; a damaged clip is a row of NaN."""
        return self._rows(lambda layers: layers[name])

    def _rows(self, select: Callable[[Mapping[Any, np.ndarray]], np.ndarray]) -> np.ndarray:
        rows_ND = np.empty((0, 0), np.float32)
        for first in range(0, self._index.num_clips, CLIPS_PER_PART):
            part_ND = select(self._part(first))
            if not first:
                rows_ND = np.empty((self._index.num_clips, part_ND.shape[1]), np.float32)
            rows_ND[first : first + len(part_ND)] = part_ND
        return rows_ND

    def _part(self, first: int) -> dict[str, np.ndarray]:
        """Return every layer of the part that begins with clip ``first``, loaded or computed."""
        if first in self._unkept:
            return self._unkept[first]
        for path in self._paths(first):
            if storage.exists(path):
                try:
                    found: dict[str, np.ndarray] = safetensors.numpy.load(storage.read_bytes(path))
                    return found
                except safetensors.SafetensorError as error:
                    logger.warning("%s is damaged and computed again: %s", path, error)
        return self._compute(first)

    def _compute(self, first: int) -> dict[str, np.ndarray]:
        """Compute every layer of a part, and store the layers unless ``keeps`` is False."""
        last = min(first + CLIPS_PER_PART, self._index.num_clips)
        if not self._keeps:
            logger.warning(
                "%s lacks the clips %d to %d: they are embedded in a process without a GPU, and not kept",
                self._uri,
                first,
                last,
            )
        vectors: dict[str, np.ndarray] = dict(self._embed(np.arange(first, last)))
        if self._keeps:
            whole, damaged = self._paths(first)
            if all(np.isfinite(array).all() for array in vectors.values()):
                storage.write_bytes(whole, safetensors.numpy.save(vectors))
                storage.delete(damaged)
            else:
                storage.write_bytes(damaged, safetensors.numpy.save(vectors))
        else:
            self._unkept[first] = vectors
        return vectors

    def _paths(self, first: int) -> tuple[str, str]:
        """Return the files of a part: for vectors that are all finite, and for a part with a damaged clip."""
        whole, damaged = (f"{first:09d}{kind}.safetensors" for kind in ("", "-damaged"))
        return storage.join(self._uri, whole), storage.join(self._uri, damaged)


def key(encoder: FrozenEncoder, index: ClipIndex, device: str = "cpu") -> str:
    """Hash the weights, the front end with its normalisation, the rule for short clips, the device, and the clips.

    The key of a CPU's vectors is the same as before GPUs had keys.
    """
    weights = safetensors.torch.save({name: t.cpu().contiguous() for name, t in encoder.encoder.state_dict().items()})
    reading = {
        "format_version": FORMAT_VERSION,
        "encoder": encoder.encoder.config.model_dump(mode="json"),
        "front_end": encoder.log_mel.config.model_dump(mode="json"),
        "normalisation": [encoder.log_mel.mean, encoder.log_mel.std],
        "crop": encoder.crop.model_dump(mode="json"),
        "clips": index.checksums,
    }
    if device != "cpu":
        reading["arithmetic"] = f"IEEE float32 on {device}"
    return storage.sha256(weights + json.dumps(reading, sort_keys=True).encode())[:32]
