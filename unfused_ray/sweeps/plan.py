"""Checks a sweep before anything is started, and keeps the record that a resume is compared with."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from rich.table import Table as RichTable

from unfused_ray import paths, storage
from unfused_ray.config import DistillConfig, SweepConfig, differences, idle_fields, within
from unfused_ray.data.shards.format import Manifest
from unfused_ray.evaluation.bootstrap import distinct_groups
from unfused_ray.evaluation.protocol import ProtocolConfig, load_protocol
from unfused_ray.evaluation.tasks import VALIDATION_SPLITS, Task, load_task, refuse_shared, role
from unfused_ray.home import home
from unfused_ray.models.export import read_description
from unfused_ray.progress import described
from unfused_ray.runs.environment import environment, resumed
from unfused_ray.sweeps import SWEEP
from unfused_ray.sweeps.search import num_trials
from unfused_ray.sweeps.space import Space, apply, default_point, grid, label_points, to_json
from unfused_ray.sweeps.spaces import find_space
from unfused_ray.sweeps.trial import FORMAT_VERSION, REMEDY, Record, TrialPlan, read_records
from unfused_ray.tracking import store
from unfused_ray.training.driver.launch import check as check_training

logger = logging.getLogger(__name__)

_NOT_VARIED = (
    *("data", "output", "name", "teacher", "seed", "epochs", "stop_after", "labels_of", "splits", "crop"),
    *("front_end", "runtime", "tracking", "init_from", "fork"),
)
_MAY_CHANGE = (
    *("num_trials", "max_concurrent", "cpus_per_trial", "gpus_per_trial", "workers_per_trial", "resume"),
    *("random_seeds", "shared_clips", "output"),
)


@dataclass(frozen=True)
class SweepPlan:
    """A sweep whose settings and tasks fit together."""

    config: SweepConfig
    """Configuration with absolute paths."""
    record: dict[str, Any]
    """The content of sweep.json: id, configuration, search space, environment, and checksums of tasks, teacher and
    protocol."""
    space: Space
    trials: TrialPlan
    default: dict[str, Any]
    """The point of the default trial."""
    records: Sequence[Record]
    """Trials that have begun before."""

    @property
    def id(self) -> str:
        """The project's id of the sweep."""
        name: str = self.record["id"]
        return name

    @property
    def num_trials(self) -> int:
        """Total number of trials."""
        return num_trials(self.config, self.space, self.default)


def check(config: SweepConfig) -> SweepPlan:
    """Refuse a sweep that cannot work, before anything is started or written.

    Raises:
        ValueError, FileNotFoundError: names the field, its value and the rule.
    """
    config = paths.check(config)
    space = find_space(config.space)
    _refuse_what_the_sweep_decides(config, space)
    distill = _trial(config)
    if distill.runtime.shares_gpus:
        raise ValueError(
            f"distill.runtime.gpus_per_worker={distill.runtime.gpus_per_worker:g} and workers_per_trial="
            f"{config.workers_per_trial} put several workers of a trial on one GPU, which NCCL refuses: give each "
            "more than 0.5, or take one worker a trial"
        )
    _refuse_values(distill, space)
    read = load_protocol(config.protocol)
    protocol = read.config
    teacher = read_description(distill.teacher)["sha256"] if distill.teacher else ""
    facts: dict[str, Any] = {"protocol": read.sha256, "teacher": teacher, "tasks": {}}
    uri = config.output or storage.join(home(), "sweeps", config.name)
    by_folds = len(config.tasks) == 1
    names = [storage.name(task) for task in config.tasks]
    for task in config.tasks:
        if names.count(storage.name(task)) > 1:
            raise ValueError(f"tasks={task}: another task's folder has the same name, rename one")
        loaded = load_task(task, VALIDATION_SPLITS)
        facts["tasks"][storage.name(task)] = loaded.index.checksums
        if "test" not in {role(split) for split in Manifest.load(task).clips_by_split}:
            raise ValueError(f"tasks={task} has no test split, by which the winner is judged at the end")
        if config.shared_clips == "refuse":
            refuse_shared(loaded)
        if not by_folds and "valid" not in loaded.splits:
            raise ValueError(
                f"tasks={task} has no validation clips, but trials of several tasks are judged by their mean"
            )
        if by_folds:
            protocol = _with_folds(protocol, loaded)
    trials = TrialPlan(uri, config.name, distill, config.tasks, rungs(config), protocol, config.score, by_folds)
    for task, point in product(config.tasks, label_points(space)):
        check_training(apply(distill, point).replace(data=(task,), output=trials.labels_uri(point, task)))
    if config.early_stopping and len(trials.rungs) == 1:
        logger.warning(
            "no trial can be stopped early: grace=%g of distill.epochs=%d lasts to their end",
            config.grace,
            distill.epochs,
        )
    default = default_point(distill, space)
    num_trials(config, space, default)
    store.tracking_uri(distill.tracking)
    record = {"config": config.model_dump(mode="json"), "space": to_json(space), "facts": facts}
    record = _kept(config.resume, {**record, "environment": environment()}, uri)
    return SweepPlan(config, record, space, trials, default, read_records(uri))


def describe(plan: SweepPlan) -> RichTable:
    """Summarise a sweep without starting it."""
    trials, config = plan.trials, plan.config
    table = described(trials.uri)
    table.add_row("tasks", "\n".join(trials.tasks))
    folds = f"{trials.protocol.probes.folds} folds of train and valid, by groups"
    judges = folds if trials.by_folds else "the mean over the valid splits"
    table.add_row("judged by", f"{config.score}, {judges}")
    for name, distribution in plan.space.items():
        table.add_row(name, str(distribution))
    table.add_row("default trial", json.dumps(plan.default))
    ended = sum(record.has_ended for record in plan.records)
    table.add_row("trials", f"{plan.num_trials} by {config.search}, {ended} of them done")
    table.add_row("scored after epochs", ", ".join(map(str, trials.rungs)))
    table.add_row("tracker", store.describe(config.distill.tracking))
    return table


def rungs(config: SweepConfig) -> tuple[int, ...]:
    """Return the epochs after which the trials of a sweep are scored."""
    epochs = config.distill.epochs
    if not config.early_stopping:
        return (epochs,)
    first = max(1, round(config.grace * epochs))
    inner = [first * config.halving**k for k in range(epochs) if first * config.halving**k < epochs]
    return (*inner, epochs)


def _refuse_what_the_sweep_decides(config: SweepConfig, space: Space) -> None:
    for name in ("data", "output", "labels_of", "stop_after"):
        if getattr(config.distill, name):
            raise ValueError(f"distill.{name} is set by the sweep: give the sweep's own tasks and output instead")
    if config.distill.fork:
        raise ValueError(f"distill.fork={config.distill.fork}: trials begin at epoch 0; give distill.init_from")
    if held_out := [split for split in config.distill.splits if role(split) in ("valid", "test", "fold")]:
        raise ValueError(
            f"distill.splits={config.distill.splits} has {held_out[0]}: trials are judged on validation clips, and the "
            "winner on test clips, so students train on neither. Leave them out"
        )
    if config.distill.watch.data:
        raise ValueError(
            f"distill.watch.data={config.distill.watch.data}: a sweep scores validation clips itself, and stops "
            "trials by them; leave it out"
        )
    origins = {point.get("labels.origin", config.distill.labels.origin) for point in label_points(space)}
    if "true" in origins and len(config.tasks) == 1:
        raise ValueError(
            "labels.origin=true: a sweep of one task judges by folds of train and valid, whose labels students would "
            "have learnt; give several tasks, which are judged by their valid splits"
        )
    for name in space:
        if within(name, _NOT_VARIED):
            raise ValueError(f"space: {name} cannot be varied: labels, rungs or folders of a sweep depend on it")


def _refuse_values(distill: DistillConfig, space: Space) -> None:
    """Refuse a space with an end that cannot work, or with a field that has an effect at none of its ends."""
    ends = [apply(distill, point) for point in grid(space, 1)]
    idle = [{name: why for name, _, why in idle_fields(end)} for end in ends]
    usual = DistillConfig()
    for name in space:
        whys = {each[name] for each in idle if name in each}
        counts = [name not in each and end.get(name) != usual.get(name) for each, end in zip(idle, ends, strict=True)]
        if whys and not any(counts):
            raise ValueError(f"space: {name} has no effect {', '.join(sorted(whys))}: leave it out")


def _trial(config: SweepConfig) -> DistillConfig:
    """Return the settings of a trial, with the processes and cores that the sweep decides."""
    kind = "workers" if config.workers_per_trial else "in-process"
    runtime: dict[str, Any] = {"runtime.kind": kind, "runtime.num_workers": config.workers_per_trial or 1}
    if config.workers_per_trial:
        # Less than one by default: the trial's own process needs a little, and one whole CPU must stay free for Ray
        # Data.
        runtime["runtime.cpus_per_worker"] = config.distill.runtime.cpus_per_worker or 0.9
    else:
        runtime |= {"runtime.threads": config.cpus_per_trial, "runtime.gpus_per_worker": 0.0}  # the trial reserves them
    for name, value in runtime.items():
        given, usual = config.distill.get(name), DistillConfig().get(name)
        if given not in (value, usual) and name != "runtime.kind":
            logger.warning("distill.%s=%s is ignored: trials have %s by the sweep's settings", name, given, value)
    return config.distill.replace(runtime)


def _with_folds(protocol: ProtocolConfig, task: Task) -> ProtocolConfig:
    """Return the protocol with as many folds as a task's groups allow; with few groups, each is held out by itself."""
    num_groups = len(np.unique(distinct_groups(task.groups)))
    if num_groups < 2:
        raise ValueError(f"tasks={task.uri} has one group of clips in train and valid: nothing can be held out of it")
    folds = min(protocol.probes.folds, num_groups)
    return protocol.replace({"probes.folds": folds})


def _kept(resume: bool, record: dict[str, Any], uri: str) -> dict[str, Any]:
    """Return the record with the id of the resumed sweep, or with a new id.

    Raises:
        ValueError: the folder holds a sweep and ``resume`` is False, or its settings, clips, teacher or protocol
            differ, so that its trials would not be comparable.
    """
    if not storage.exists(storage.join(uri, SWEEP)):
        return {"id": uuid.uuid4().hex, **record}
    if not resume:
        raise ValueError(f"{uri} holds a sweep: --resume resumes it, another --output begins a new one")
    old = read_sweep(uri)
    free = {*_MAY_CHANGE, "distill.teacher", "distill.tracking"}
    if record["config"]["search"] == "grid":
        free.remove("num_trials")  # it decides the points of the grid
    changes = differences(_decisive(old), _decisive(record))
    if lines := [line for name, line in changes.items() if not within(name, free)]:
        raise ValueError(f"{uri} was started with other settings:\n  " + "\n  ".join(lines))
    return {"id": old["id"], **record, **resumed(uri, old, record["environment"])}


def _decisive(record: dict[str, Any]) -> dict[str, Any]:
    """Return everything that decides a sweep: its settings, and checksums of tasks, teacher and protocol."""
    return {**record["config"], "space": record["space"], **record["facts"]}


def read_sweep(uri: str) -> dict[str, Any]:
    """Read the record of the sweep in the folder ``uri``.

    Raises:
        FileNotFoundError: there is no sweep.
        ValueError: it was written by another version.
    """
    return storage.read_json(storage.join(uri, SWEEP), FORMAT_VERSION, REMEDY)
