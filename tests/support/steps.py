"""Optimiser steps of any method on noise, on any device, without shards or a run."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import torch

from unfused_ray import recipes
from unfused_ray.config import DistillConfig, TrainingConfig
from unfused_ray.data.shards.format import Statistics
from unfused_ray.data.stream.read import Block
from unfused_ray.runs.checkpoints import Position
from unfused_ray.training.stages import stage_of
from unfused_ray.training.worker.collectives import LocalCollectives
from unfused_ray.training.worker.epoch_sums import EpochSums
from unfused_ray.training.worker.learner import Learner

CONFIGS: dict[str, TrainingConfig] = {
    **{name: config.replace(ema_decay=0.9) for name, (_, config) in recipes.PRETRAIN.items() if "tiny" in name},
    "unfused": recipes.DISTILL["tiny"][1].replace(ema_decay=0.9),
}
"""The smallest network of every method, with an average of its weights."""
NUM_CLIPS = 1000


@dataclass
class Steps:
    """Calls are steps, each on other noise; the same of all that have equal settings."""

    config: TrainingConfig
    learner: Learner
    num_heads: int
    number: int = 0
    sums: EpochSums = field(default_factory=EpochSums)

    def __call__(self) -> None:
        batch, crop = self.config.batch, self.config.crop
        shape = (batch.block, crop.num_crops, crop.num_samples(self.config.front_end.sample_rate))
        labels = [np.arange(NUM_CLIPS, dtype=np.int32) % 2 for _ in range(self.num_heads)]
        first = self.number * batch.blocks_per_step
        blocks = [
            Block(
                first + i,
                np.arange(batch.block),
                np.random.default_rng(first + i).integers(-1000, 1000, shape).astype(np.int16),
                np.ones(batch.block, np.float32),
            )
            for i in range(batch.blocks_per_step)
        ]
        collected = itertools.count()
        self.learner.step(
            Position(0, self.number), iter(blocks), labels, 1e-3, self.sums, lambda ids, rows: next(collected)
        )
        self.number += 1


def steps_of(config: TrainingConfig, device: torch.device) -> Steps:
    """A method with weights of its seed on a device, ready to be trained."""
    stage = stage_of(config)
    num_classes = config.labels.num_clusters if isinstance(config, DistillConfig) else stage.num_classes(None)
    torch.manual_seed(config.seed)
    with device:
        method = stage.build_method(num_classes)
    method.to = lambda _: method  # type: ignore[method-assign]  # where it is: a fake tensor cannot be moved in place
    if stage.clustering:
        rng = np.random.default_rng(0)
        method.begin_epoch([rng.standard_normal((n, config.method.projection_dim), np.float32) for n in num_classes])
    learner = Learner(config, Statistics(1, 0.0, 1.0), method.train(), LocalCollectives(), device)
    return Steps(config, learner, len(num_classes))
