"""A run tried for a few seconds on blocks of its own clips: its bottleneck, and how long it would take.

A dry run happens in its own process; nothing is written and no worker is started. Not measured is what takes several
processes (gradients between workers, Ray's own work), the writing of checkpoints, and pseudo-labels that are made once
before the run: the forecast is a little too short.
"""

from __future__ import annotations

import itertools
import math
import os
import statistics
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import numpy as np
import torch
from rich.table import Table

from unfused_ray.clustering.kmeans import BLOCK_ROWS, RowBlocks
from unfused_ray.config import TrainingConfig
from unfused_ray.data.shards.format import Statistics
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.data.stream.plan import Pass, Planner
from unfused_ray.data.stream.read import Block
from unfused_ray.labels.clustered import passes_before
from unfused_ray.runs.checkpoints import Position
from unfused_ray.training.driver.forecast import Forecast, Measured, Work
from unfused_ray.training.job import TrainingJob
from unfused_ray.training.worker.collectives import LocalCollectives
from unfused_ray.training.worker.device import set_threads
from unfused_ray.training.worker.epoch_sums import EpochSums
from unfused_ray.training.worker.learner import Learner

DECODE_SECONDS, STEP_SECONDS, OTHER_SECONDS = 1.5, 5.0, 0.7
"""How long a stage is measured, unless two repetitions take longer."""


def describe(config: TrainingConfig, index: ClipIndex) -> Table:
    """Measure for some seconds; say what would limit a run, what it needs and how long it takes.

    Args:
        config: of the run, checked.
        index: its clips. If the run would take a worker group, Ray is connected to its cluster.
    """
    table = Table("", "", title="measured in this process, on these clips", title_justify="left", show_header=False)
    runtime, batch = config.runtime, config.batch
    if runtime.kind == "workers" and runtime.gpus_per_worker and not torch.cuda.is_available():
        table.add_row("forecast", "none: its workers have GPUs, this machine has not. Try the dry run on one that has")
        return table
    rehearsal = Rehearsal(config, index)
    measured, work = rehearsal.measure(), rehearsal.work
    forecast = Forecast(measured, work)
    step = batch.blocks_per_step // work.workers * measured.train
    table.add_row("decoding", f"{batch.block / measured.decode:,.0f} clips/s on one CPU")
    table.add_row(
        "training",
        f"{batch.block / measured.train:,.1f} clips/s a worker ({rehearsal.device}, {rehearsal.threads} threads): "
        f"{step:.3g} s a step of {batch.clips_per_step} clips",
    )
    if work.embed_passes:
        table.add_row("embedding every clip", f"{batch.block / measured.embed:,.1f} clips/s a worker")
    table.add_row(
        "clustering", f"{measured.cluster:.2g} s an epoch" if rehearsal.plan else "none: nothing is clustered"
    )
    table.add_row("limited by", forecast.limit)
    table.add_row("CPUs for decoding", f"{forecast.decode_cpus:.2g} a worker, so that none waits for data")
    table.add_row("checkpoints", f"{rehearsal.checkpoint_bytes() / 1e6:,.1f} MB each, {config.checkpoint.keep} kept")
    embedding = f" + {work.embed_passes} × {forecast.embed_seconds:.3g} s to embed" if work.embed_passes else ""
    table.add_row(
        "the whole run",
        f"{forecast.hours:.2g} hours ({timedelta(seconds=round(3600 * forecast.hours))}) with {work.workers} "
        f"worker{'s' * (work.workers > 1)}: {work.epochs} epochs × "
        f"({forecast.train_seconds:.3g} s to train + {measured.cluster:.2g} s to cluster){embedding}",
    )
    return table


class Rehearsal:
    """The parts of a run that can be tried alone: reading, a step, an embedding, a clustering.

    Gives this process the torch threads that a worker would have.

    Args:
        config: of the run.
        index: its clips.
    """

    def __init__(self, config: TrainingConfig, index: ClipIndex) -> None:
        on_workers = config.runtime.kind == "workers"
        workers = config.runtime.num_workers if on_workers else 1
        on_gpu = torch.cuda.is_available() and (not on_workers or config.runtime.gpus_per_worker > 0)
        nodes, cpus, decoders = _cluster_shape(config) if on_workers else (1, len(os.sched_getaffinity(0)), 1)
        self.device = torch.device("cuda" if on_gpu else "cpu")
        self.threads = set_threads(config.runtime, math.ceil(workers / nodes))
        # A worker's share of a step, as a step of its own: that is what one process can measure.
        share = {"batch.blocks_per_step": config.batch.blocks_per_step // workers, "runtime.kind": "in-process"}
        known = index.statistics(config.front_end) or Statistics(1, 0.0, 1.0)  # any do: they change no time
        self.job = TrainingJob(config.replace(share), "", index, known)
        self.plan = self.job.clustering_plan(0 if on_workers else self.threads)
        stage = self.job.stage
        self.num_classes = stage.num_classes(index)
        method = stage.build_method(self.num_classes)
        if self.plan is not None:
            rng = np.random.default_rng(config.seed)
            method.begin_epoch([_unit_vectors(rng, clusters, self.plan.dim) for clusters in self.num_classes])
        self.learner = Learner(self.job.config, known, method.train(), LocalCollectives(), self.device)
        planner, blocks_per_step = Planner(index, config.seed, config.batch), config.batch.blocks_per_step
        self.work = Work(
            epochs=config.last_epoch,
            train_blocks=planner.num_steps("train") * blocks_per_step,
            embed_blocks=planner.num_steps("embed") * blocks_per_step,
            embed_passes=sum(len(passes_before(stage.clustering, e, e == 0)) for e in range(config.last_epoch)),
            workers=workers,
            busy_cpus=1 if on_gpu else self.threads,
            decoders=decoders,
            cpus=cpus,
        )

    def measure(self) -> Measured:
        """Measure every stage of the run; about ten seconds, unless a step takes long."""
        decode, blocks = self._decode()
        endless = itertools.cycle(blocks)
        labels = [np.zeros(self.job.index.num_clips, np.int32) for _ in self.num_classes]
        step = self._seconds(lambda: self.learner.step(Position(), endless, labels, 0.0, EpochSums()), STEP_SECONDS)
        embed = 0.0
        if self.work.embed_passes:
            embed = self._seconds(lambda: self.learner.embed(next(endless)), OTHER_SECONDS)
        return Measured(decode, step / self.learner.blocks_per_step, embed, self._cluster())

    def checkpoint_bytes(self) -> int:
        """Size of a checkpoint, labels uncompressed; to be called after a step, which makes the moments."""
        num_clips, dim = self.job.index.num_clips, self.plan.dim if self.plan else 0
        tensors = sum(tensor.nbytes for group in self.learner.state.tensors().values() for tensor in group.values())
        bank = math.ceil(num_clips / BLOCK_ROWS) * BLOCK_ROWS * 2 * (dim + 1) if dim else 0
        labels = len(self.num_classes) * num_clips * (8 + 4 + 4)
        return tensors + bank + labels

    def _decode(self) -> tuple[float, list[Block]]:
        """Read some tasks of an epoch: seconds a block, and blocks to train on, no more than a step has."""
        segment = next(self.job.planner.segments(Pass("train", 0)))
        seconds: list[float] = []
        blocks: list[Block] = []
        for task in self.job.planner.read_tasks(segment):
            started = time.perf_counter()
            made = list(self.job.reader.read(segment.pass_, task))
            seconds.append((time.perf_counter() - started) / len(made))
            blocks = [*blocks, *made][: self.learner.blocks_per_step]
            if sum(seconds) * len(made) > DECODE_SECONDS:
                break
        return statistics.median(seconds), blocks

    def _cluster(self) -> float:
        """An epoch's clustering at most: iterations over a few blocks of random embeddings, multiplied."""
        plan = self.plan
        if plan is None:
            return 0.0
        threads = plan.threads or os.cpu_count() or 1
        num_blocks = math.ceil(plan.num_clips / BLOCK_ROWS)
        sample = min(num_blocks, threads)
        rng = np.random.default_rng(plan.seed)
        points = RowBlocks.of(_unit_vectors(rng, sample * BLOCK_ROWS, plan.dim), threads)
        seconds = self._seconds(points.gram, OTHER_SECONDS)
        for clusters in plan.num_clusters:
            centroids = _unit_vectors(rng, clusters, plan.dim)
            seconds += (plan.iterations + 1) * self._seconds(partial(points.sums, centroids), OTHER_SECONDS)
        return seconds * num_blocks / sample

    def _seconds(self, work: Callable[[], object], budget: float) -> float:
        """Median of a repeated call: after one that does not count, twice, then until the budget is spent."""
        taken: list[float] = []
        while len(taken) < 3 or sum(taken[1:]) + taken[-1] < budget:
            started = time.perf_counter()
            work()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - started)
        return statistics.median(taken[1:])


def _cluster_shape(config: TrainingConfig) -> tuple[int, float, float]:
    """Nodes of the cluster, its CPUs, and those that its workers leave for decoding."""
    import ray  # here: a training in this process needs no Ray

    from unfused_ray import cluster

    nodes = sum(node["Alive"] for node in ray.nodes())
    cpus = cluster.capacity()["CPU"]
    return nodes, cpus, cpus - config.runtime.num_workers * cluster.worker_cpus(config.runtime)


def _unit_vectors(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    vectors = rng.standard_normal((count, dim), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
