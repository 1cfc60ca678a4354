"""A training from the driver's side: check it, describe it, run it, and make its labels beforehand."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from unfused_ray import storage
from unfused_ray.config import TrainingConfig, flatten
from unfused_ray.data.shards.format import Statistics
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.data.shards.statistics import compute_statistics
from unfused_ray.data.stream.plan import Planner
from unfused_ray.evaluation.watched_clips import watched_tasks
from unfused_ray.home import home
from unfused_ray.lease import Lease, refuse_lost, user
from unfused_ray.progress import described
from unfused_ray.runs.checkpoints import CheckpointStore, Position
from unfused_ray.runs.environment import environment
from unfused_ray.runs.exported import exported_epochs, exported_network
from unfused_ray.runs.provenance import origin_facts, origins
from unfused_ray.runs.resume import ResumePoint, find_resume_point
from unfused_ray.runs.run import Run
from unfused_ray.runs.start_times import StartTimes
from unfused_ray.runs.status import Status
from unfused_ray.runs.watched import has_ended_early
from unfused_ray.tracking.mlflow import TrackedRun, tags
from unfused_ray.tracking.store import announce, experiment_name
from unfused_ray.training.driver.data import TrainingData, read_data
from unfused_ray.training.driver.monitor import supervise
from unfused_ray.training.driver.warm_start import check_origin, warm_start
from unfused_ray.training.job import TrainingJob
from unfused_ray.training.runtimes import runtime_of
from unfused_ray.training.stages import stage_of
from unfused_ray.training.worker.device import refuse_unknown_backend

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingPlan:
    """A training whose settings and data fit together."""

    config: TrainingConfig
    """Settings, with absolute paths."""
    run: Run
    facts: dict[str, Any]
    """Facts of the data that must not change."""
    index: ClipIndex
    planner: Planner
    tracking_uri: str
    fork_point: ResumePoint | None
    """The checkpoint of another run to begin from; None if the run is not a fork, or has already begun."""


def check(given: TrainingConfig | TrainingData) -> TrainingPlan:
    """Read the manifests; refuse a run that cannot work or has ended badly, before anything is started or written.

    Args:
        given: the settings, or settings whose manifests have been read.

    Raises:
        ValueError, FileNotFoundError: the run is refused; names field, value and rule.
    """
    data = read_data(given) if isinstance(given, TrainingConfig) else given
    config, index = data.config, data.index
    refuse_unknown_backend(config.runtime)
    runtime_of(config.runtime).refuse_impossible(config.runtime)
    watched_tasks(config.watch, config.front_end)
    uri = config.output or storage.join(home(), "runs", config.name)
    Run(uri).refuse_other_content()
    begun = bool(CheckpointStore(uri).committed())
    record = Run(uri).record() if begun else None
    facts = {"num_clips": index.num_clips, "data_checksums": index.checksums, **origin_facts(config, record)}
    facts |= stage_of(config).check(index, record["facts"] if record else {})
    Run(uri).refuse_repetition(config, facts)
    fork_point = None if begun else check_origin(config, facts)
    return TrainingPlan(config, Run(uri), facts, index, data.planner, data.tracking_uri, fork_point)


def describe(plan: TrainingPlan) -> Table:
    """Summarise a training without starting it; a worker group is checked against the session's cluster."""
    config, run, index = plan.config, plan.run, plan.index
    steps = plan.planner.num_steps("train")
    table = described(run.uri)
    table.add_row("data", "\n".join(f"{manifest.uri} ({manifest.num_clips:,} clips)" for manifest in index.manifests))
    table.add_row("epochs × steps", f"{config.epochs} × {steps:,} of {config.batch.clips_per_step} clips")
    table.add_row("left out of each epoch", f"{index.num_clips - steps * config.batch.clips_per_step:,} clips")
    facts = {**stage_of(config).describe(index), **runtime_of(config.runtime).describe(config.runtime)}
    for heading, text in facts.items():
        table.add_row(heading, text)
    for watched in watched_tasks(config.watch, config.front_end):
        clips = " and ".join(f"{count:,} of {split}" for split, count in watched.splits.items())
        table.add_row(f"watched: {watched.task.name}", f"{clips}, every {config.watch.every} epochs")
    table.add_row("statistics", "known" if index.statistics(config.front_end) else "would be computed first")
    status = run.status()
    table.add_row("state", f"{status.state} after {status.epoch} epochs, {status.step} steps" if status else "new")
    if holder := user(run.uri):
        table.add_row("in use by", f"{holder}: this command would be refused")
    if changes := run.changes(config, plan.facts):
        kept = CheckpointStore(run.uri).committed() or exported_epochs(run)
        table.add_row("other settings", "\n".join([*changes, "refused" if kept else "the run would begin anew"]))
    return table


def run(
    plan: TrainingPlan,
    start_times: StartTimes | None = None,
    in_sweep: bool = False,
    parent: str = "",
    on_epoch: Callable[[], object] = lambda: None,
) -> Status:
    """Train to the end, or to the next SIGTERM or Ctrl-C, from the newest checkpoint if there is one.

    Args:
        plan: plan of the training, from :func:`check`.
        start_times: times of the calling command's start; by default they are counted from now.
        in_sweep: True if the run lies in the folder of a sweep, which tracks it and keeps other processes out. It is
            then no run of its own in MLflow, and takes over at once the lease of a process that has died with its
            machine.
        parent: the project's id of the run under which MLflow shows this one; '' for none.
        on_epoch: called soon after the checkpoint of an epoch, in the process that watches the training.

    Raises:
        ValueError: the settings differ from those the run was started with, or the network of a run without checkpoints
            would be replaced.
        InUseError: another process is working on the run, or has taken it over.
    """
    start_times = start_times or StartTimes()
    config, run, index = plan.config, plan.run, plan.index
    runtime = runtime_of(config.runtime)
    lost = threading.Event()
    with Lease(run.uri, on_loss=lost.set, guarded=in_sweep):
        if (ended := _end_without_checkpoints(plan)) is not None:
            return ended
        record = run.open(config, plan.facts, environment())
        own = find_resume_point(run.uri)
        if own is not None and (status := _status_without_training(run, config, own)) is not None:
            if (kept := run.status()) is None or (kept.state, kept.epoch) != (status.state, status.epoch):
                run.write_status(status)  # for a driver that died after the export
            return status
        start_times.reach("checked")
        with runtime.session(config.runtime, _read(plan), run.uri, start_times):
            statistics = _statistics(index, config)
            _watched_statistics(config)
            stage_of(config).make_labels(run.uri, index, statistics, runtime.labelling(config.runtime))
            weights, origin = warm_start(config) if own is None else ({}, None)
            start_times.reach("data and labels ready")
            refuse_lost(run.uri, lost)  # checked again, because labelling takes minutes
            resume_point = own or plan.fork_point
            job = TrainingJob(config, run.uri, index, statistics, weights, resume_point, start_times)
            tracked = None
            if not in_sweep:
                begun_from = resume_point.checkpoint if resume_point else origin
                upstream = origins(config, begun_from) if own is None else []
                announce(config.tracking, runtime.several_nodes())
                tracked = _tracked_run(plan, record, parent, upstream)
            with runtime.start(job, tracked) as training:
                steps = plan.planner.num_steps("train")
                return supervise(run, steps, config.last_epoch, training, lost, on_epoch)


def _end_without_checkpoints(plan: TrainingPlan) -> Status | None:
    """Return the status of a run that has ended and whose checkpoints are gone; None for any other run.

    Raises:
        ValueError: other settings, or more epochs, would make it begin anew and replace its network.
    """
    run, config = plan.run, plan.config
    epochs = 0 if CheckpointStore(run.uri).committed() else exported_epochs(run)
    if not epochs:
        return None
    has_ended = epochs == config.last_epoch or has_ended_early(run.history(), config.watch)
    if not has_ended or run.changes(config, plan.facts):
        raise ValueError(
            f"{run.uri} holds the network of {epochs} epochs but no checkpoint any more: the training would begin anew "
            "with these settings, and replace that network. Give another --output, or delete the folder"
        )
    logger.info("%s has no epoch left to train, and no checkpoint any more", run.uri)
    stopped = epochs == config.stop_after < config.epochs
    return Status("stopped" if stopped else "finished", epochs, 0)


def _status_without_training(run: Run, config: TrainingConfig, own: ResumePoint) -> Status | None:
    """Return the status of a run that has no epoch left to train, or has ended early; None if it is to be trained.

    Raises:
        ValueError: the run is already beyond the end set by ``stop_after`` or ``epochs``, and was not exported there.
    """
    position, early = own.position, has_ended_early(own.checkpoint.details["history"], config.watch)
    if (position.epoch >= config.last_epoch or early) and exported_epochs(run) == position.epoch:
        finished = position.epoch >= config.epochs
        more = "More --epochs resume it from its end" if finished else "A later --stop-after resumes it"
        if early and not finished:
            more = "It has ended early; --watch.patience 0 resumes it"
        logger.info("%s has no epoch left to train. %s", run.uri, more)
        if (exported := exported_network(run)) != config.watch.export:
            logger.warning("watch.export=%s is ignored: the run ended with %s", config.watch.export, exported)
        return Status("finished" if finished or early else "stopped", position.epoch, position.step)
    if position > Position(config.last_epoch):
        raise ValueError(
            f"{config.ends_by}={config.last_epoch} lies before the position of {run.uri}, after {position.epoch} "
            f"epochs, {position.step} steps: give a later one"
        )
    return None


def _tracked_run(
    plan: TrainingPlan, record: Mapping[str, Any], parent: str, upstream: list[dict[str, str]]
) -> TrackedRun:
    """Return the run in MLflow.

    Args:
        plan, record, parent: plan, record and parent of the run.
        upstream: runs and exports that it begins with; empty for a resume, because they may have changed by then.
    """
    config = plan.config
    return TrackedRun(
        uri=plan.tracking_uri,
        experiment=experiment_name(config.tracking),
        name=config.name,
        id=record["id"],
        config=record["config"],
        params=flatten(record["config"]) | {"num_clips": plan.index.num_clips},
        tags=tags(config.stage, plan.run.uri, plan.index.manifests, upstream),
        parent=parent,
        system_metrics=True,
    )


def label(plan: TrainingPlan) -> None:
    """Make the labels that are fixed for a whole run, without training; other runs can reuse them (``labels_of``).

    Raises:
        InUseError: another process is working on the run, or has taken it over.
    """
    config, uri, index = plan.config, plan.run.uri, plan.index
    runtime = runtime_of(config.runtime)
    lost = threading.Event()
    with (
        Lease(uri, on_loss=lost.set),
        runtime.session(config.runtime, _read(plan), uri, StartTimes()),
    ):
        plan.run.open(config, plan.facts)
        stage_of(config).make_labels(uri, index, _statistics(index, config), runtime.labelling(config.runtime))
        refuse_lost(uri, lost)  # the labels there may be those of another process


def _statistics(index: ClipIndex, config: TrainingConfig) -> Statistics:
    """Return the log-mel statistics of all clips; if ingest has not computed them, do so where the training runs."""
    executor = runtime_of(config.runtime).executor
    parts = (compute_statistics(manifest, config.front_end, executor) for manifest in index.manifests)
    return index.statistics(config.front_end) or sum(parts, Statistics())


def _watched_statistics(config: TrainingConfig) -> None:
    """Compute, where the training runs, the statistics of watched clips that ingest has not computed."""
    executor = runtime_of(config.runtime).executor
    for watched in watched_tasks(config.watch, config.front_end):
        compute_statistics(watched.task.training.manifests[0], config.front_end, executor)


def _read(plan: TrainingPlan) -> dict[str, tuple[str, ...]]:
    """Return the folders that the workers read, by field; the driver sends them everything else that a run begins
    with."""
    config = plan.config
    fork = {"fork": (config.fork,)} if plan.fork_point else {}  # once the run has begun, its source may be gone
    return {"data": config.data, "watch.data": config.watch.data, **fork}
