"""Estimates, in a dry run, the speed on a GPU that is not there: counts the operations of a step on this machine's
CPU."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch

from unfused_ray.config import TrainingConfig
from unfused_ray.data.shards.format import Statistics
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.data.stream.plan import Pass
from unfused_ray.data.stream.prefetch import LocalSource
from unfused_ray.data.stream.read import Block
from unfused_ray.models import kernels
from unfused_ray.models.roofline import CARDS, count, estimate
from unfused_ray.runs.checkpoints import Position
from unfused_ray.training.job import TrainingJob
from unfused_ray.training.worker.collectives import LocalCollectives
from unfused_ray.training.worker.epoch_sums import EpochSums
from unfused_ray.training.worker.learner import Learner


def describe(config: TrainingConfig, index: ClipIndex) -> str:
    """Estimate a worker's step on the GPU that ``runtime.estimate_for`` names; it takes two steps on the CPU.

    The estimate is for bfloat16, whatever the settings ask for. No cluster is needed.

    Args:
        config: checked settings of the run.
        index: clips of the run.
    """
    runtime = config.runtime
    workers = runtime.num_workers if runtime.kind == "workers" else 1
    share = {
        "batch.blocks_per_step": config.batch.blocks_per_step // workers,
        "runtime.kind": "in-process",
        "runtime.precision": "bfloat16",
    }
    job = TrainingJob(config.replace(share), "", index, index.statistics(config.front_end) or Statistics(1, 0.0, 1.0))
    num_classes, clustering = job.stage.num_classes(index), job.stage.clustering
    method = job.stage.build_method(num_classes)
    if clustering is not None:
        method.begin_epoch([np.eye(clusters, clustering.dim, dtype=np.float32) for clusters in num_classes])
    learner = Learner(job.config, job.statistics, method.train(), LocalCollectives(), torch.device("cpu"))
    blocks = itertools.cycle(itertools.islice(_blocks(job), job.config.batch.blocks_per_step))
    labels = [np.zeros(index.num_clips, np.int32) for _ in num_classes]
    with kernels.as_on_gpu():
        work = count(lambda: learner.step(Position(), blocks, labels, 0.0, EpochSums()))
    found = estimate(work, job.config.batch.clips_per_step, CARDS[runtime.estimate_for])
    return f"{runtime.estimate_for}: {found}"


def _blocks(job: TrainingJob) -> Iterator[Block]:
    return LocalSource(job.planner, job.reader).blocks(Pass("train", 0))
