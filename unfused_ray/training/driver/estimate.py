"""Estimates, in a dry run, the speed on a GPU that is not there: counts the operations of a step on this machine's
CPU."""

from __future__ import annotations

import itertools

import torch

from unfused_ray.config import TrainingConfig
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.data.stream.plan import Pass
from unfused_ray.data.stream.prefetch import LocalSource
from unfused_ray.models import kernels
from unfused_ray.models.roofline import CARDS, count, estimate
from unfused_ray.training.driver.lone_worker import LoneWorker


def describe(config: TrainingConfig, index: ClipIndex) -> str:
    """Estimate a worker's step on the GPU that ``runtime.estimate_for`` names; it takes two steps on the CPU.

    The estimate is for bfloat16, whatever the settings ask for. No cluster is needed.

    Args:
        config: checked settings of the run.
        index: clips of the run.
    """
    runtime = config.runtime
    workers = runtime.num_workers if runtime.kind == "workers" else 1
    worker = LoneWorker(config, index, workers, torch.device("cpu"), **{"runtime.precision": "bfloat16"})
    read = LocalSource(worker.job.planner, worker.job.reader).blocks(Pass("train", 0))
    blocks = itertools.cycle(itertools.islice(read, worker.learner.blocks_per_step))
    with kernels.as_on_gpu():
        work = count(lambda: worker.step(blocks))
    found = estimate(work, worker.job.config.batch.clips_per_step, CARDS[runtime.estimate_for])
    return f"{runtime.estimate_for}: {found}"
