"""Tries a run for a few seconds on blocks of its own clips, to find its bottleneck and how long it would take.

A dry run happens in its own process or, if workers have GPUs and this process has none, in a task with a GPU. It writes
nothing and starts no worker. It does not measure work that takes several processes (exchange of gradients between
workers, Ray's own work), the writing of checkpoints, looks at watched clips, or pseudo-labels that are made once before
the run. So the forecast is a little too short.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import numpy as np
import torch
from rich.table import Table

from unfused_ray.clustering.row_blocks import RowBlocks
from unfused_ray.clustering.rows import BLOCK_ROWS, random_unit_rows
from unfused_ray.config import TrainingConfig
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.data.stream.plan import Pass, Planner
from unfused_ray.data.stream.read import Block
from unfused_ray.labels.clustered import passes_before
from unfused_ray.machine.threads import usable_cores
from unfused_ray.progress import described
from unfused_ray.training.driver.forecast import Forecast
from unfused_ray.training.driver.lone_worker import LoneWorker
from unfused_ray.training.runtimes import runtime_of
from unfused_ray.training.runtimes.runtime import Resources
from unfused_ray.training.worker.device import set_threads

DECODE_SECONDS, STEP_SECONDS, OTHER_SECONDS = 1.5, 5.0, 0.7
"""Time for which a stage is measured, unless two repetitions take longer."""


def describe(config: TrainingConfig, index: ClipIndex) -> Table:
    """Measure for some seconds; describe what limits a run, what it needs and how long it takes.

    Args:
        config: checked settings of the run.
        index: clips of the run. If the run would use a worker group, Ray is connected to its cluster.
    """
    table = described("measured on these clips")
    batch, runtime = config.batch, runtime_of(config.runtime)
    tried = runtime.rehearse(config.runtime, partial(_rehearse, config, index, runtime.resources(config.runtime)))
    run = tried.forecast
    step = batch.blocks_per_step // run.workers * run.train
    table.add_row("decoding", f"{batch.block / run.decode:,.0f} clips/s on one CPU")
    table.add_row(
        "training",
        f"{batch.block / run.train:,.1f} clips/s a worker ({tried.arithmetic}): "
        f"{step:.3g} s a step of {batch.clips_per_step} clips",
    )
    embedding = ""
    if run.embed_passes:
        table.add_row("embedding every clip", f"{batch.block / run.embed:,.1f} clips/s a worker")
        embedding = f" + {run.embed_passes} × {run.embed_seconds:.3g} s to embed"
    table.add_row("clustering", f"{run.cluster:.2g} s an epoch" if tried.clusters else "none: nothing is clustered")
    table.add_row("limited by", run.limit)
    table.add_row("CPUs for decoding", f"{run.decode_cpus:.2g} a worker, so that none waits for data")
    table.add_row("checkpoints", f"{tried.checkpoint_bytes / 1e6:,.1f} MB each, {config.checkpoint.keep} kept")
    table.add_row(
        "the whole run",
        f"{run.hours:.2g} hours ({timedelta(seconds=round(3600 * run.hours))}) with {run.workers} "
        f"worker{'s' * (run.workers > 1)}: {run.epochs} epochs × "
        f"({run.train_seconds:.3g} s to train + {run.cluster:.2g} s to cluster){embedding}",
    )
    return table


@dataclass(frozen=True)
class Rehearsal:
    """The result of a dry run, in whichever process it was made."""

    forecast: Forecast
    arithmetic: str
    """Number format and device of the measurement."""
    clusters: bool
    """True if an epoch begins with a clustering."""
    checkpoint_bytes: int


def _rehearse(config: TrainingConfig, index: ClipIndex, resources: Resources) -> Rehearsal:
    measured = Measurement(config, index, resources)
    forecast = measured.forecast()
    return Rehearsal(forecast, measured.learner.arithmetic, measured.plan is not None, measured.checkpoint_bytes())


class Measurement(LoneWorker):
    """The parts of a run that can be tried in one process: reading, a step, an embedding, a clustering.

    Its creation gives this process the torch threads that a worker would have.

    Args:
        config: settings of the run.
        index: clips of the run.
        resources: resources that the run would have; by default those of this machine, or of the session's cluster.
    """

    def __init__(self, config: TrainingConfig, index: ClipIndex, resources: Resources | None = None) -> None:
        self.config, runtime = config, runtime_of(config.runtime)
        self.resources = resources or runtime.resources(config.runtime)
        workers = self.resources.num_workers
        self.device = torch.device("cuda" if runtime.uses_gpus(config.runtime) and torch.cuda.is_available() else "cpu")
        self.threads = set_threads(config.runtime, math.ceil(workers / self.resources.num_nodes))
        super().__init__(config, index, workers, self.device)
        self.plan = self.job.clustering_plan(0 if runtime.has_assignment_actor else self.threads)

    def forecast(self) -> Forecast:
        """Measure every stage of the run. This takes about ten seconds, unless a step takes long."""
        planner = Planner(self.job.index, self.config.seed, self.config.batch)
        epochs, clustering = self.config.last_epoch, self.job.stage.clustering
        passes = [pass_ for epoch in range(epochs) for pass_ in passes_before(clustering, epoch, epoch == 0)]
        decode, blocks = self._decode()
        endless = itertools.cycle(blocks)
        step = self._seconds(lambda: self.step(endless), STEP_SECONDS)
        return Forecast(
            decode=decode,
            train=step / self.learner.blocks_per_step,
            embed=self._seconds(lambda: self.learner.embed(next(endless)), OTHER_SECONDS) if passes else 0.0,
            cluster=self._cluster(),
            epochs=epochs,
            train_blocks=planner.num_steps("train") * self.config.batch.blocks_per_step,
            embed_blocks=planner.num_steps("embed") * self.config.batch.blocks_per_step,
            embed_passes=len(passes),
            workers=self.resources.num_workers,
            busy_cpus=1 if self.device.type == "cuda" else self.threads,
            decoders=self.resources.decode_cpus,
            cpus=self.resources.cpus,
        )

    def checkpoint_bytes(self) -> int:
        """Return the size of a checkpoint, labels uncompressed; to be called after a step, which creates the
        moments."""
        num_clips, dim = self.job.index.num_clips, self.plan.dim if self.plan else 0
        tensors = sum(tensor.nbytes for group in self.learner.state.tensors().values() for tensor in group.values())
        bank = math.ceil(num_clips / BLOCK_ROWS) * BLOCK_ROWS * 2 * (dim + 1) if dim else 0
        labels = len(self.labels) * num_clips * (8 + 4 + 4)
        return tensors + bank + labels

    def _decode(self) -> tuple[float, list[Block]]:
        """Read some tasks of an epoch; return the seconds per block, and blocks to train on, at most as many as a step
        has."""
        (segment,) = next(self.job.planner.executions([Pass("train", 0)]))
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
        """Return the most seconds that an epoch's clustering takes, measured on a few blocks of random embeddings."""
        plan = self.plan
        if plan is None:
            return 0.0
        threads = plan.threads or usable_cores()
        num_blocks = math.ceil(plan.num_clips / BLOCK_ROWS)
        sample = min(num_blocks, threads)
        rng = np.random.default_rng(plan.seed)
        points = RowBlocks.of(random_unit_rows(rng, sample * BLOCK_ROWS, plan.dim), threads)
        seconds = self._seconds(points.gram, OTHER_SECONDS)
        for clusters in plan.num_clusters:
            centroids = random_unit_rows(rng, clusters, plan.dim)
            seconds += (plan.iterations + 1) * self._seconds(partial(points.sums, centroids), OTHER_SECONDS)
        return seconds * num_blocks / sample

    def _seconds(self, work: Callable[[], object], budget: float) -> float:
        """Return the median time of a call: one warm-up, then at least two calls, more until the budget is spent."""
        taken: list[float] = []
        while len(taken) < 3 or sum(taken[1:]) + taken[-1] < budget:
            started = time.perf_counter()
            work()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - started)
        return statistics.median(taken[1:])
