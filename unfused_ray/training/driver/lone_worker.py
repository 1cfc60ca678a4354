"""One worker's share of a training that has not begun, to be tried in this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from unfused_ray.config import TrainingConfig
from unfused_ray.data.shards.format import Statistics
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.data.stream.read import Block
from unfused_ray.runs.checkpoints import Position
from unfused_ray.training.job import TrainingJob
from unfused_ray.training.worker.collectives import LocalCollectives
from unfused_ray.training.worker.epoch_sums import EpochSums
from unfused_ray.training.worker.learner import Learner


class LoneWorker:
    """A worker whose share of a step is a step of its own, which one process can try.

    Args:
        config: settings of the run.
        index: clips of the run.
        num_workers: number of workers that would share a step.
        device: device of the worker.
        **changes: settings to change, by dotted name.
    """

    def __init__(
        self, config: TrainingConfig, index: ClipIndex, num_workers: int, device: torch.device, **changes: Any
    ) -> None:
        share = {"batch.blocks_per_step": config.batch.blocks_per_step // num_workers, "runtime.kind": "in-process"}
        known = index.statistics(config.front_end) or Statistics(1, 0.0, 1.0)  # any will do: the work is the same
        self.job = TrainingJob(config.replace({**share, **changes}), "", index, known)
        method = self.job.stage.begun_method(index)
        self.learner = Learner(self.job.config, known, method, LocalCollectives(), device)
        self.labels = [np.zeros(index.num_clips, np.int32) for _ in self.job.stage.num_classes(index)]

    def step(self, blocks: Iterator[Block]) -> None:
        """Train on the next blocks, all of whose clips have the label 0."""
        self.learner.step(Position(), blocks, self.labels, 0.0, EpochSums())
