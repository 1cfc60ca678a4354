"""Runs optimiser steps of any method on noise, on any device, without shards or a run."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from benchmarks.gpu.learning import NoiseBlock, labels, learner
from unfused_ray import recipes
from unfused_ray.config import TrainingConfig
from unfused_ray.runs.checkpoints import Position
from unfused_ray.training.worker.collectives import Collectives
from unfused_ray.training.worker.epoch_sums import EpochSums
from unfused_ray.training.worker.learner import Learner

_RECIPES: dict[str, TrainingConfig] = {
    **{name: config for name, (_, config) in recipes.PRETRAIN.items() if "tiny" in name},
    "unfused": recipes.DISTILL["tiny"][1],
}
CONFIGS = {name: config.replace({"ema_decay": 0.9, "batch.blocks_per_step": 2}) for name, config in _RECIPES.items()}
"""Configurations of every method's smallest network, with an average of its weights and two blocks a step."""
NUM_CLASSES = 8


@dataclass
class Steps:
    """A learner that each call trains by one step; step ``n`` sees the same noise for equal settings."""

    config: TrainingConfig
    learner: Learner
    sums: EpochSums = field(default_factory=EpochSums)
    number: int = 0

    def __call__(self) -> None:
        batch = self.config.batch
        first = self.number * batch.blocks_per_step
        blocks = (NoiseBlock.of(self.config, index) for index in range(first, first + batch.blocks_per_step))
        given = labels(self.config, (self.number + 1) * batch.clips_per_step, NUM_CLASSES)
        self.learner.step(Position(0, self.number), blocks, given, 1e-3, self.sums, lambda clip_ids, rows: None)
        self.number += 1


def steps_of(config: TrainingConfig, device: torch.device, group: Collectives | None = None) -> Steps:
    """Return a method on a device, with the weights of its seed, to train alone or as a worker of a group."""
    return Steps(config, learner(config, device, NUM_CLASSES, group=group))
