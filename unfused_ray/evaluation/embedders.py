"""Encoders from other sources, as rows of a table beside our own."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import soxr
import torch

from unfused_ray import storage
from unfused_ray.audio.crop import complete
from unfused_ray.config import CropConfig
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.embedding.cache import EmbeddingCache
from unfused_ray.embedding.clips import read_clips
from unfused_ray.evaluation.onnx_embedder import OnnxEmbedder
from unfused_ray.evaluation.protocol import ProtocolConfig
from unfused_ray.evaluation.tasks import Task
from unfused_ray.models.precision import ieee_float32

_SPEC = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_BATCH_SECONDS = 60.0
"""Longest audio in a batch of several clips, in seconds."""


class Embedder(Protocol):
    """Anything that makes a vector of a clip. It is named by ``module:callable``, called without arguments.

    ::

        class Mine:                        # --models NAME=package.module:Mine
            sample_rate = 32_000
            version = "2022-11-25"
            num_parameters = 5_000_000     # optional, and multiply_adds, for a second of audio

            def embed(self, wave_BT: np.ndarray) -> torch.Tensor:
                return self.model(torch.from_numpy(wave_BT)).mean(dim=1)

    The module must be importable wherever the evaluation runs: installed, or in a folder of PYTHONPATH. Each process
    that fills cells makes one embedder. If there is a GPU, an embedder in a process that sees it embeds the clips; the
    processes that fill cells see no GPU and make embedders of their own. So choose the device by
    ``torch.cuda.is_available()``.
    """

    sample_rate: int
    """Sample rate in Hz; clips of another rate are resampled to it."""
    version: str
    """Must change when the vectors would, as the SHA-256 of the weights does: stored vectors and cells are keyed by
    it."""

    def embed(self, wave_BT: np.ndarray) -> np.ndarray | torch.Tensor:
        """Return one vector per clip: (B, samples) float32 in [-1, 1] → (B, D), on any device.

        A call gets whole mono clips of one length, which may differ between calls. None is shorter than the protocol's
        crop. On a GPU, float32 within the call is IEEE float32, not TF32. A vector that is not finite marks its clip as
        damaged.
        """
        ...


@dataclass(frozen=True)
class EmbedderModel:
    """A system whose vectors come from an :class:`Embedder`, used as they are, without a readout."""

    name: str
    spec: str
    """``module:callable``, or the path or URI of an ONNX file."""
    num_networks: int = 1

    def identity(self, task: Task) -> str:
        """Return its name and version, and the sample rate of its input."""
        embedder = load_embedder(self.spec)
        return f"{self.spec} {embedder.version} {embedder.sample_rate}"

    def front_end_of(self, task: Task) -> None:
        """Return None: its input is waves, not log-mels."""

    def cost(self, task: Task) -> tuple[int, float | None] | None:
        """Return its parameters and multiply-adds, as far as it states them."""
        embedder = load_embedder(self.spec)
        parameters: int | None = getattr(embedder, "num_parameters", None)
        return (parameters, getattr(embedder, "multiply_adds", None)) if parameters else None

    def vectors(self, task: Task, protocol: ProtocolConfig, cache: EmbeddingCache) -> Iterator[np.ndarray]:
        """Yield the vectors of whole clips."""
        embedder = load_embedder(self.spec)
        crop = protocol.crop
        reading = {"embedder": self.identity(task), "crop": crop.model_dump(mode="json"), "clips": task.index.checksums}
        if cache.device != "cpu":  # a CPU's key is the same as before GPUs had keys
            reading["arithmetic"] = f"IEEE float32 on {cache.device}"
        key = storage.sha256(json.dumps(reading, sort_keys=True).encode())[:32]
        kept = cache.kept(key, task.index, lambda ids: {"last": vectors_of_clips(embedder, crop, task.index, ids)})
        yield kept.layer("last")


def is_spec(text: str) -> bool:
    """Return True for ``module:callable``."""
    return _SPEC.fullmatch(text) is not None


def is_onnx(path: str) -> bool:
    """Return True for the path or URI of an ONNX file."""
    return storage.name(path).endswith(".onnx")


def load_embedder(spec: str) -> Embedder:
    """Make the embedder that ``module:callable`` or the path of an ONNX file names, once per process and file.

    Raises:
        ValueError: there is no such module or callable, or it makes no embedder; or the file is not an ONNX file of
            this project.
        FileNotFoundError: the file is missing.
    """
    if is_onnx(spec):  # the path may hold another export by now
        return _load_onnx(spec, storage.sha256_file(spec))
    return _make_embedder(spec)


@lru_cache(maxsize=8)
def _load_onnx(spec: str, sha256: str) -> OnnxEmbedder:
    return OnnxEmbedder(spec)


@cache
def _make_embedder(spec: str) -> Embedder:
    module, _, name = spec.partition(":")
    try:
        made: Any = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"models: {spec} cannot be made: {error}. Name an installed module, or put its folder on PYTHONPATH"
        ) from error
    missing = [field for field in ("sample_rate", "version", "embed") if not hasattr(made, field)]
    if missing:
        raise ValueError(f"models: {spec} gives a {type(made).__name__} without {' and '.join(missing)}")
    embedder: Embedder = made
    return embedder


@torch.inference_mode()
@ieee_float32()
def vectors_of_clips(embedder: Embedder, crop: CropConfig, index: ClipIndex, clip_ids: np.ndarray) -> np.ndarray:
    """Embed whole clips in batches of equal length: (N,) int64 → (N, D) float32; a damaged clip is a row of NaN.

    Args:
        embedder: makes the vectors.
        crop: length and rule to which shorter clips are completed.
        index: the clips, of one sample rate.
        clip_ids: ids of the clips to embed, in any order.

    Raises:
        ValueError: the embedder does not return one vector per clip.
        OSError: a shard is missing or its storage does not answer.
    """
    stored = index.manifests[0].front_end.sample_rate
    size = _vectors(embedder, np.zeros((1, crop.num_samples(stored)), np.int16), stored).shape[1]
    vectors_ND = np.full((len(clip_ids), size), np.nan, np.float32)
    for clips in completed_clips(index, clip_ids, crop):
        for length, alike in groupby(sorted(clips, key=lambda clip: len(clip[1])), key=lambda clip: len(clip[1])):
            same, most = list(alike), max(1, int(_BATCH_SECONDS * stored / length))
            for first in range(0, len(same), most):
                places, waves = zip(*same[first : first + most], strict=True)
                vectors_ND[list(places)] = _vectors(embedder, np.stack(waves), stored)
    return vectors_ND


def completed_clips(index: ClipIndex, clip_ids: np.ndarray, crop: CropConfig) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Read clips one row group at a time, and complete those that are shorter than the crop.

    Yields:
        Pairs of a position in ``clip_ids`` and the clip, (samples,) int16; without damaged clips.
    """
    shortest = crop.num_samples(index.manifests[0].front_end.sample_rate)
    for clips in read_clips(index, clip_ids):
        yield [(place, complete(wave, shortest, crop.short_clips)) for place, wave in clips]


def _vectors(embedder: Embedder, pcm_BT: np.ndarray, sample_rate: int) -> np.ndarray:
    wave_BT = pcm_BT.astype(np.float32) / 2**15
    if sample_rate != embedder.sample_rate:
        wave_BT = np.ascontiguousarray(soxr.resample(wave_BT.T, sample_rate, embedder.sample_rate).T)
    found = embedder.embed(wave_BT)
    vectors_BD = np.asarray(found.cpu() if isinstance(found, torch.Tensor) else found, np.float32)
    if vectors_BD.ndim != 2 or len(vectors_BD) != len(wave_BT):
        raise ValueError(
            f"{type(embedder).__name__}.embed gave shape {vectors_BD.shape} for {len(wave_BT)} clips, not a vector each"
        )
    return vectors_BD
