"""A training stage from the driver's side: check, start, watch, stop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from rich.table import Table

from unfused_ray import cluster, storage
from unfused_ray.config import TrainingConfig, flatten
from unfused_ray.data.parts.executor import default_executor
from unfused_ray.data.shards.format import Statistics
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.data.shards.statistics import compute_statistics
from unfused_ray.data.stream.plan import Planner
from unfused_ray.home import home
from unfused_ray.lease import Lease, user
from unfused_ray.models.export import DESCRIPTION
from unfused_ray.runs.checkpoints import CheckpointStore, Position
from unfused_ray.runs.environment import environment
from unfused_ray.runs.provenance import origins
from unfused_ray.runs.run import Run
from unfused_ray.runs.start_times import Milestones
from unfused_ray.runs.status import Status
from unfused_ray.tracking.mlflow import TrackedRun, tags, tracking_uri
from unfused_ray.training.coordinator import Coordinator
from unfused_ray.training.driver.monitor import Watched, supervise
from unfused_ray.training.driver.warm_start import check_origin, warm_start
from unfused_ray.training.runtimes.runtime import Job, run_in_process, run_workers
from unfused_ray.training.stages.stages import stage_of
from unfused_ray.training.worker.device import refuse_unknown_backend

logger = logging.getLogger(__name__)

# A coordinator that is started anew is told again what matters: by workers and stream where they stand, by the driver
# whether to stop. Messages and the count of failures begin anew.
_OUTLIVES_ITS_PROCESS = {"max_restarts": -1, "max_task_retries": -1}


@dataclass(frozen=True)
class Prepared:
    """A run whose settings and data have been found to fit."""

    run: Run
    facts: dict[str, Any]
    """What must not change of the data."""
    index: ClipIndex
    planner: Planner
    tracking_uri: str


def check(config: TrainingConfig) -> Prepared:
    """Read the manifests and refuse what cannot work, before anything is started or written.

    Raises:
        ValueError, FileNotFoundError: with the field, its value and the rule.
    """
    refuse_unknown_backend(config.runtime)
    index = ClipIndex.load(config.data, config.splits)
    planner = Planner(index, config.seed, config.batch)
    rates = {manifest.config["front_end"]["sample_rate"] for manifest in index.manifests}
    if rates != {config.front_end.sample_rate}:
        raise ValueError(
            f"front_end.sample_rate={config.front_end.sample_rate} must be that of the shards, {sorted(rates)}"
        )
    uri = config.output or storage.join(home(), "runs", config.name)
    begun = bool(CheckpointStore(uri, keep=1).committed())
    known = Run(uri).record()["facts"] if begun else {}
    facts = {"num_clips": index.num_clips, "data_checksums": index.checksums, **stage_of(config).check(index, known)}
    if not begun:
        check_origin(config, facts)
    return Prepared(Run(uri), facts, index, planner, tracking_uri(config.tracking))


def describe(config: TrainingConfig) -> Table:
    """What :func:`train` would do, checked against the data and the cluster that Ray is connected to."""
    prepared = check(config)
    planner, index = prepared.planner, prepared.index
    steps = planner.num_steps("train")
    table = Table("", "", title=prepared.run.uri, title_justify="left", show_header=False)
    table.add_row("data", "\n".join(f"{manifest.uri} ({manifest.num_clips:,} clips)" for manifest in index.manifests))
    table.add_row("epochs × steps", f"{config.epochs} × {steps:,} of {config.batch.clips_per_step} clips")
    table.add_row("left out of each epoch", f"{index.num_clips - steps * config.batch.clips_per_step:,} clips")
    for heading, text in stage_of(config).describe(index).items():
        table.add_row(heading, text)
    if config.runtime.kind == "workers":
        cpus = cluster.worker_cpus(config.runtime)
        table.add_row("workers", f"{config.runtime.num_workers} × {cpus:g} CPU, {config.runtime.gpus_per_worker:g} GPU")
    table.add_row("statistics", "known" if index.statistics(config.front_end) else "would be computed first")
    status = prepared.run.status()
    table.add_row("state", f"{status.state}, epoch {status.epoch} step {status.step}" if status else "new")
    if holder := user(prepared.run.uri):
        table.add_row("in use by", f"{holder}: it would be refused")
    if changes := prepared.run.changes(config, prepared.facts):
        begun = CheckpointStore(prepared.run.uri, keep=1).committed()
        table.add_row("other settings", "\n".join([*changes, "refused" if begun else "it would begin anew"]))
    return table


def train(
    config: TrainingConfig, milestones: Milestones | None = None, in_sweep: bool = False, parent: str = ""
) -> Status:
    """Train to the end, or to the next SIGTERM or Ctrl-C, from wherever the run stands.

    Args:
        config: of the run.
        milestones: of the command that starts it; from now on by default.
        in_sweep: whether a sweep, whose folder it is in, tracks it and keeps others out: it is no run of its own in
            MLflow then, and its lease need not settle.
        parent: id of the run that it is shown under there; '' is none.

    Raises:
        ValueError: settings that cannot work, or that differ from those the run was started with.
        InUseError: another process works on the run, or has taken it over.
    """
    milestones = milestones or Milestones()
    milestones.reach("imported")
    prepared = check(config)
    run, index = prepared.run, prepared.index
    lost = threading.Event()
    with Lease(run.uri, on_loss=lost.set, settle=not in_sweep):
        record = run.open(config, prepared.facts, environment())
        newest = CheckpointStore(run.uri, keep=1).newest()
        if (
            newest is not None
            and newest.position.epoch >= config.last_epoch
            and _exported(run, config.export) == newest.position.epoch
        ):
            finished = newest.position.epoch >= config.epochs
            more = "More --epochs go on from its end" if finished else "A later --stop-after goes on"
            logger.info("%s has no epoch left to train. %s", run.uri, more)
            return Status("finished" if finished else "stopped", newest.position.epoch, newest.position.step)
        if newest is not None and config.stop_after and newest.position > Position(config.last_epoch):
            epoch, step = newest.position.epoch, newest.position.step
            raise ValueError(
                f"stop_after={config.stop_after} lies before where {run.uri} stands, epoch {epoch} step {step}: give a "
                "later one"
            )
        milestones.reach("checked")
        needs_ray = config.runtime.kind == "workers" or index.statistics(config.front_end) is None
        with cluster.session() if needs_ray else _nothing():
            if needs_ray:
                milestones.reach("Ray started")
            if config.runtime.kind == "workers":
                cluster.refuse_local_paths({"data": config.data, "output": (run.uri,)})
            statistics = _statistics(index, config)
            stage_of(config).make_labels(run.uri, index, statistics)
            warm = warm_start(config) if newest is None else {}
            milestones.reach("data and labels ready")
            job = Job(config, run.uri, index, statistics, warm, milestones)
            tracking = _tracked_run(prepared, config, record, parent, begins=newest is None) if not in_sweep else None
            launch = _workers if config.runtime.kind == "workers" else _in_process
            with launch(job, tracking) as (target, coordinator):
                steps = prepared.planner.num_steps("train")
                status = supervise(run, steps, config.last_epoch, target, coordinator, lost)
    return status


def _tracked_run(
    prepared: Prepared, config: TrainingConfig, record: Mapping[str, Any], parent: str, begins: bool
) -> TrackedRun:
    """What the run is in MLflow; what it began with is said where it begins, later that may look otherwise."""
    return TrackedRun(
        uri=prepared.tracking_uri,
        experiment=config.tracking.experiment,
        name=config.name,
        id=record["id"],
        config=record["config"],
        params=flatten(record["config"]) | {"num_clips": prepared.index.num_clips},
        tags=tags(config.stage, prepared.run.uri, prepared.index.manifests, origins(config) if begins else ()),
        parent=parent,
        system_metrics=True,
    )


def label(config: TrainingConfig) -> None:
    """Make the labels that are fixed for a whole run, and train nothing: other runs take them over (``labels_of``).

    Raises:
        ValueError, FileNotFoundError: settings that cannot work.
        InUseError: another process works on the run.
    """
    prepared = check(config)
    with Lease(prepared.run.uri, on_loss=lambda: logger.warning("another process makes %s", prepared.run.uri)):
        prepared.run.open(config, prepared.facts)
        with cluster.session() if prepared.index.statistics(config.front_end) is None else _nothing():
            stage_of(config).make_labels(prepared.run.uri, prepared.index, _statistics(prepared.index, config))


def _statistics(index: ClipIndex, config: TrainingConfig) -> Statistics:
    """Of the log-mels of all clips; computed on Ray where ingest has not."""
    parts = (compute_statistics(manifest, config.front_end, default_executor()) for manifest in index.manifests)
    return index.statistics(config.front_end) or sum(parts, Statistics())


def _exported(run: Run, export: str) -> int:
    """Epochs that the exported network has seen, which may be older than the newest checkpoint; 0 without one."""
    path = storage.join(run.uri, export, DESCRIPTION)
    epochs: int = storage.read_json(path)["extra"]["epochs"] if storage.exists(path) else 0
    return epochs


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _in_process(job: Job, tracked: TrackedRun | None) -> Iterator[tuple[Callable[[], Status], Watched]]:
    coordinator = Coordinator(tracked, job.first_step(job.start()))
    try:
        yield (
            lambda: run_in_process(job, coordinator),
            Watched(coordinator.progress, coordinator.request_stop, coordinator.abandon, coordinator.close),
        )
    finally:
        coordinator.stop_tracking()


@contextmanager
def _workers(job: Job, tracked: TrackedRun | None) -> Iterator[tuple[Callable[[], Status], Watched]]:
    cluster.worker_cpus(job.config.runtime)
    options = {**_OUTLIVES_ITS_PROCESS, **cluster.on_this_node()}
    actor = ray.remote(Coordinator).options(**options).remote(tracked, job.first_step(job.start()))
    assignment = job.start_clustering()
    try:
        yield (
            lambda: run_workers(job, actor, assignment),
            Watched(
                lambda: ray.get(actor.progress.remote()),
                lambda reason: ray.get(actor.request_stop.remote(reason)),
                lambda reason: ray.get(actor.abandon.remote(reason)),
                lambda status: ray.get(actor.close.remote(status)),
            ),
        )
    finally:
        ray.kill(actor)
        if assignment is not None:
            ray.kill(assignment)
