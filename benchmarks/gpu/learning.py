"""Learners on blocks of noise: a training's own step, without shards, Ray and audio decoding."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from unfused_ray.config import DistillConfig, TrainingConfig
from unfused_ray.methods import METHODS
from unfused_ray.methods.method import Method
from unfused_ray.methods.unfused import Unfused
from unfused_ray.training.worker.collectives import Collectives, LocalCollectives
from unfused_ray.training.worker.learner import Learner

STATISTICS: Any = SimpleNamespace(mean=-5.0, std=4.0)
"""Statistics of the log-mels, which a training takes from its clips."""


@dataclass(frozen=True)
class NoiseBlock:
    """A block of clips as a stream yields it (:class:`unfused_ray.data.stream.read.Block`)."""

    index: int
    clip_ids: np.ndarray
    waves: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, config: TrainingConfig, index: int) -> Any:
        """Draw noise in the shape of a configuration's block: its clips, crops and samples."""
        rng, size = np.random.default_rng(index), config.batch.block
        samples = config.crop.num_samples(config.front_end.sample_rate)
        waves = rng.integers(-9_000, 9_000, (size, config.crop.num_crops, samples), np.int16)
        return cls(index, np.arange(index * size, (index + 1) * size), waves, np.ones(size, np.float32))


def build_method(config: TrainingConfig, num_classes: int, seed: int = 0) -> Method:
    """Build the method of a configuration with random weights, and with random prototypes if it has any."""
    torch.manual_seed(seed)
    if isinstance(config, DistillConfig):
        return Unfused(config.method, config.encoder, config.front_end.num_mels, [num_classes])
    given: Any = config
    method = METHODS[given.method.kind](given.method, config.encoder, config.front_end.num_mels)
    if given.method.kind == "decar-v2":
        prototypes_KD = np.random.default_rng(seed).standard_normal((num_classes, given.method.projection_dim))
        method.begin_epoch([(prototypes_KD / np.linalg.norm(prototypes_KD, axis=1, keepdims=True)).astype(np.float32)])
    return method


def labels(config: TrainingConfig, num_clips: int, num_classes: int) -> list[np.ndarray]:
    """Return labels for ``num_clips`` clips; an empty list for a method that learns none."""
    given: Any = config
    has_labels = isinstance(config, DistillConfig) or given.method.kind == "decar-v2"
    return [np.arange(num_clips, dtype=np.int32) % num_classes] if has_labels else []


def learner(
    config: TrainingConfig, device: torch.device, num_classes: int, seed: int = 0, group: Collectives | None = None
) -> Learner:
    """Build the learner of a training."""
    method = build_method(config, num_classes, seed).train()
    return Learner(config, STATISTICS, method, group or LocalCollectives(), device)
