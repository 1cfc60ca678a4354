"""The driver of a sweep: labels once, trials under Ray Tune, a table, and the winner on the test split.

What a sweep knows lies in plain files (``sweep.json``, ``trials/<id>/trial.json`` and the checkpoints of unfinished
trials): nothing of Ray Tune's own state is kept or read back.
"""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import optuna
import ray
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch
from rich.table import Table as RichTable

from unfused_ray import cluster, memory, storage
from unfused_ray.config import SweepConfig
from unfused_ray.data.shards import Manifest
from unfused_ray.evaluation.protocol import ProtocolConfig, load_protocol
from unfused_ray.evaluation.tasks import load_task
from unfused_ray.models.export import read_description
from unfused_ray.progress import Progress
from unfused_ray.sweep.space import Space, apply, default_point, grid, identity, label_points, num_values
from unfused_ray.sweep.trial import SPLITS, Plan, Record, read_record, read_records, run_trial
from unfused_ray.training.launch import check as check_training
from unfused_ray.training.launch import label
from unfused_ray.training.run import Lease, differences, home

logger = logging.getLogger(__name__)

SWEEP = "sweep.json"
_NOT_VARIED = (
    *("data", "output", "name", "teacher", "seed", "epochs", "stop_after", "labels_of", "splits", "crop"),
    *("front_end", "runtime", "tracking", "init_from", "fork"),
)
_MAY_CHANGE = ("num_trials", "max_concurrent", "cpus_per_trial", "workers_per_trial", "resume", "random_seeds")


@dataclass(frozen=True)
class Prepared:
    """A sweep whose settings have been found to fit."""

    config: SweepConfig
    record: dict[str, Any]
    """What is kept of it: the configuration, and checksums of tasks, teacher and protocol."""
    space: Space
    plan: Plan
    default: dict[str, Any]
    """The point of the default trial."""
    records: Sequence[Record]
    """Of trials that have begun before."""

    @property
    def protocol(self) -> ProtocolConfig:
        """How trials are scored."""
        return self.plan.protocol


def check(config: SweepConfig, spaces: dict[str, Space]) -> Prepared:
    """Refuse what cannot work, before anything is started or written.

    Raises:
        ValueError, FileNotFoundError: with the field, its value and the rule.
    """
    if config.space not in spaces:
        raise ValueError(f"space={config.space} is none of {', '.join(sorted(spaces))}")
    if not config.tasks:
        raise ValueError("tasks=() names no task: give at least one folder written by jobs/prepare.py")
    for name in ("data", "output", "labels_of", "stop_after"):
        if getattr(config.distill, name):
            raise ValueError(f"distill.{name} is the sweep's business: name tasks and output of the sweep instead")
    space = spaces[config.space]
    for name in space:
        if name in _NOT_VARIED or name.partition(".")[0] in _NOT_VARIED:
            raise ValueError(f"space: {name} cannot be varied: labels, rungs or folders of a sweep depend on it")
    kind = "workers" if config.workers_per_trial else "in-process"
    runtime: dict[str, Any] = {"kind": kind, "num_workers": config.workers_per_trial or 1}
    if config.workers_per_trial:
        # Less than one by default: the trial itself needs a little, and one whole CPU must stay free for Ray Data.
        runtime["cpus_per_worker"] = config.distill.runtime.cpus_per_worker or 0.9
    else:
        runtime["threads"] = config.cpus_per_trial
    distill = config.distill.model_copy(update={"runtime": config.distill.runtime.model_copy(update=runtime)})
    read = load_protocol(config.protocol)
    protocol = read.config.model_copy(update={"readouts": config.readouts})
    teacher = read_description(distill.teacher)["sha256"] if distill.teacher else ""
    facts: dict[str, Any] = {"protocol": read.sha256, "teacher": teacher, "tasks": {}}
    uri = config.output or storage.join(home(), "sweeps", config.name)
    by_folds = len(config.tasks) == 1
    plan = Plan(uri, config.name, distill, config.tasks, rungs(config), protocol, by_folds)
    names = [storage.name(task) for task in config.tasks]
    for task in config.tasks:
        if names.count(storage.name(task)) > 1:
            raise ValueError(f"tasks={task}: another task's folder is called the same, rename one")
        loaded = load_task(task, SPLITS)
        facts["tasks"][storage.name(task)] = loaded.index.checksums
        if "test" not in Manifest.load(task).clips_by_split:
            raise ValueError(f"tasks={task} has no test split, by which the winner is judged at the end")
        if not by_folds and "valid" not in loaded.splits:
            raise ValueError(
                f"tasks={task} has no validation clips, by whose mean over several tasks trials are judged"
            )
        for point in label_points(space):
            check_training(apply(distill, point).model_copy(update={"data": (task,)}))
    default = default_point(distill, space)
    record = {"config": config.model_dump(mode="json"), "facts": facts}
    _refuse_other_sweep(config.resume, record, uri)
    return Prepared(config, record, space, plan, default, read_records(uri))


def describe(prepared: Prepared) -> RichTable:
    """What :func:`sweep` would do."""
    plan, config = prepared.plan, prepared.config
    table = RichTable("", "", title=plan.uri, title_justify="left", show_header=False)
    table.add_row("tasks", "\n".join(plan.tasks))
    table.add_row("judged by", "folds of train and valid" if plan.by_folds else "the mean over the valid splits")
    for name, distribution in prepared.space.items():
        table.add_row(name, str(distribution))
    table.add_row("default trial", json.dumps(prepared.default))
    ended = sum(record.has_ended for record in prepared.records)
    table.add_row("trials", f"{config.num_trials} by {config.search}, {ended} of them done")
    table.add_row("scored after epochs", ", ".join(map(str, plan.rungs)))
    return table


def rungs(config: SweepConfig) -> tuple[int, ...]:
    """Epochs after which the trials of a sweep are scored."""
    epochs = config.distill.epochs
    if not config.early_stopping:
        return (epochs,)
    first = max(1, round(config.grace * epochs))
    inner = [first * config.halving**k for k in range(epochs) if first * config.halving**k < epochs]
    return (*inner, epochs)


def sweep(prepared: Prepared) -> Sequence[Record]:
    """Run the trials that are missing; returns the records of all.

    Raises:
        KeyboardInterrupt: it was stopped; the same command with ``--resume`` goes on.
    """
    plan = prepared.plan
    with Lease(plan.uri, on_loss=lambda: os._exit(1)):
        storage.write_bytes(storage.join(plan.uri, SWEEP), json.dumps(prepared.record, indent=1).encode())
        for task in plan.tasks:
            for point in label_points(prepared.space):
                data = {"data": (task,), "output": plan.labels_uri(point, task), "name": f"{plan.name}-labels"}
                label(apply(plan.distill, point).model_copy(update=data))
        missing = _num_trials(prepared) - sum(record.has_ended for record in prepared.records)
        if missing > 0:
            os.environ.update(memory.ENVIRONMENT)  # of the trials' processes, where the cluster is started here
            with cluster.session(), tempfile.TemporaryDirectory(prefix="unfused-ray-sweep-") as folder:
                _tune(prepared, missing, folder)
        records = read_records(plan.uri)
        for record in records:
            if record.state == "failed":
                logger.warning("trial %s failed: %s", record.id, record.message)
        if any(record.state == "running" for record in records):
            raise KeyboardInterrupt("the sweep was interrupted: the same command with --resume goes on")
    return records


def _tune(prepared: Prepared, num_trials: int, folder: str) -> None:
    config, plan = prepared.config, prepared.plan
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trainable = tune.with_parameters(_trainable, plan=plan)
    cpus = 0.01 if config.workers_per_trial else float(config.cpus_per_trial)
    scheduler = FIFOScheduler()
    if config.early_stopping and len(plan.rungs) > 1:
        scheduler = AsyncHyperBandScheduler(
            time_attr="epoch", max_t=plan.rungs[-1], grace_period=plan.rungs[0], reduction_factor=config.halving
        )
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    with Progress("trials", config.num_trials, "trials", done=config.num_trials - num_trials) as bar:
        tune.Tuner(
            tune.with_resources(trainable, {"CPU": cpus}),
            tune_config=tune.TuneConfig(
                metric="accuracy",
                mode="max",
                search_alg=ConcurrencyLimiter(_search(prepared), _concurrent(prepared, cpus)),
                scheduler=scheduler,
                num_samples=num_trials,
                reuse_actors=True,
            ),
            # Ray Tune's own state goes to a folder that is thrown away: a sweep resumes from its trials' files.
            run_config=tune.RunConfig(storage_path=folder, callbacks=[_Records(plan.uri, bar)], verbose=0),
        ).fit()


def _trainable(point: dict[str, Any], plan: Plan) -> None:
    run_trial(plan, point, tune.report)


def _search(prepared: Prepared) -> OptunaSearch:
    """The search, knowing the trials that have ended, and with those to begin with that have not."""
    config, known = prepared.config, {record.id for record in prepared.records}
    seed = config.seed + len(known)  # a resumed search must not draw what was drawn before
    sampler: BaseSampler = TPESampler(seed=seed) if config.search == "tpe" else RandomSampler(seed=seed)
    ended = [record for record in prepared.records if record.has_ended]
    wanted = [record.point for record in prepared.records if not record.has_ended]
    wanted += [point for point in _given(prepared) if identity(point) not in known]
    search = OptunaSearch(
        dict(prepared.space), metric="accuracy", mode="max", sampler=sampler, points_to_evaluate=wanted
    )
    for record in ended:
        search.add_evaluated_point(record.point, record.accuracy)
    return search


def _concurrent(prepared: Prepared, cpus: float) -> int:
    """Trials at a time, such that none holds what another waits for."""
    config, have = prepared.config, ray.cluster_resources().get("CPU", 1.0)
    each = cpus
    if config.workers_per_trial:
        each += config.workers_per_trial * prepared.plan.distill.runtime.cpus_per_worker + 1
    fitting = math.floor(have / each)
    if not fitting:
        raise ValueError(f"a trial needs {each:g} CPUs, its workers and Ray Data among them; the cluster has {have:g}")
    return min(fitting, config.max_concurrent or fitting)


class _Records(tune.Callback):
    """Notes in the trials' files how they ended, and shows how far the sweep is."""

    def __init__(self, uri: str, bar: Progress) -> None:
        self._uri, self._bar = uri, bar
        self._best = -math.inf

    def __getstate__(self) -> dict[str, Any]:
        """Without the bar: Ray Tune writes its callbacks to a folder that is thrown away, and a bar cannot be."""
        return {**vars(self), "_bar": None}

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        self._best = max(self._best, result["accuracy"])
        self._show(0)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._end(trial, "stopped early", "")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        error = trial.get_error()
        self._end(trial, "failed", str(error).strip().splitlines()[-1] if error else "its process died")

    def _end(self, trial: Trial, state: Any, message: str) -> None:
        record = read_record(self._uri, trial.config)
        if record.state != "finished":
            replace(record, state=state, message=message).write(self._uri)
        self._show(1)

    def _show(self, done: int) -> None:
        self._bar.update(self._bar.done + done, best=self._best)


def _given(prepared: Prepared) -> list[dict[str, Any]]:
    """Points that are tried whatever the search finds: the default one, and those of a grid."""
    if prepared.config.search != "grid":
        return [prepared.default]
    values = grid(prepared.space, prepared.config.num_trials)
    points = [dict(zip(values, point, strict=True)) for point in product(*values.values())]
    return [prepared.default, *(point for point in points if point != prepared.default)]


def _num_trials(prepared: Prepared) -> int:
    """Trials in all: no more than the space, or the grid, has points."""
    sizes = [num_values(distribution) for distribution in prepared.space.values()]
    most = len(_given(prepared)) if prepared.config.search == "grid" else math.prod(sizes)
    return int(min(prepared.config.num_trials, most))


def _refuse_other_sweep(resume: bool, record: dict[str, Any], uri: str) -> None:
    """Refuse to go on with a sweep of other settings, clips, teacher or protocol: its trials would not compare."""
    path = storage.join(uri, SWEEP)
    if not storage.exists(path):
        return
    if not resume:
        raise ValueError(f"{uri} holds a sweep: --resume goes on with it, another --output begins a new one")
    old, new = map(_compared, (json.loads(storage.read_bytes(path)), record))
    if changes := differences(old, new):
        raise ValueError(f"{uri} was started with other settings:\n  " + "\n  ".join(changes))


def _compared(record: dict[str, Any]) -> dict[str, Any]:
    """What may not change: settings, and what tasks, teacher and protocol hold, wherever they lie."""
    kept = {name: value for name, value in record["config"].items() if name not in _MAY_CHANGE}
    distill = {name: value for name, value in kept["distill"].items() if name != "teacher"}
    return {**kept, "distill": distill, **record["facts"]}
