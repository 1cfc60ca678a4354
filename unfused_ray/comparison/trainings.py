"""The trainings of a results table, one per system, seed and perhaps task: their folders, budgets and states."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from unfused_ray import storage
from unfused_ray.comparison.budget import (
    TERA,
    clip_operations,
    epoch_clips,
    epochs_of,
    labelling_operations,
    within_budget,
)
from unfused_ray.comparison.table_plan import PlannedSystem, TablePlan
from unfused_ray.config import TrainingConfig
from unfused_ray.data.shards.format import MANIFEST, Manifest
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.evaluation.tasks import load_task, role
from unfused_ray.lease import is_in_use
from unfused_ray.runs.checkpoints import CheckpointStore
from unfused_ray.runs.exported import exported_network
from unfused_ray.runs.reader import seconds_of
from unfused_ray.runs.run import Run, is_run
from unfused_ray.training.driver.launch import check

State = Literal["to do", "begun", "running", "finished"]


@dataclass(frozen=True)
class Training:
    """A run of ``unfused-ray pretrain`` or ``distill``."""

    system: PlannedSystem
    seed: int
    task: str
    """Task, or fold such as ``us8k-fold3``, if the system has a network per task; else empty."""
    config: TrainingConfig
    tflop: float
    """Operations of its epochs in 10¹², excluding the runs that it builds on."""
    labelling_tflop: float
    """Operations in 10¹² of the pass that makes its first pseudo-labels."""
    needs: tuple[Training, ...]
    """Runs that must be finished first."""

    @property
    def name(self) -> str:
        """Name of the training for people."""
        return f"{self.system.slug}, seed {self.seed}" + (f", {self.task}" if self.task else "")

    @property
    def folder(self) -> str:
        """Folder of the run."""
        return self.config.output

    @property
    def state(self) -> State:
        """State of the run."""
        status = Run(self.folder).status()
        if status is not None and status.state == "finished" and status.epoch >= self.config.epochs:
            return "finished"
        if is_in_use(self.folder):
            return "running"
        return "begun" if status is not None else "to do"

    @property
    def minutes(self) -> float:
        """Minutes that its epochs have taken so far, excluding start-up."""
        epochs = Run(self.folder).history()
        return seconds_of(epochs) / 60


class Trainings:
    """All trainings of a plan.

    Args:
        plan: plan of the table.
        data_root: path or URI of the folder that holds its sources and tasks.
        output: folder of the table.
        given: folders of finished runs to use instead of training, by the name of their system. ``{seed}`` and
            ``{task}`` in a path stand for the run's. A path without ``{seed}`` is used only for the seed of its run;
            with ``{seed}``, runs may be missing for some seeds.
    """

    def __init__(self, plan: TablePlan, data_root: str, output: str, given: Mapping[str, str]) -> None:
        self.plan = plan
        self._root = data_root
        self._output = output
        self._given = {plan.system(slug).name: path for slug, path in given.items()}
        self._operations: dict[str, float] = {}
        self._known: dict[tuple[str, int], tuple[Training, ...]] = {}

    def uri(self, source: str) -> str:
        """Return the folder of a prepared source or task."""
        return storage.join(self._root, source)

    def of(self, system: PlannedSystem, seed: int) -> tuple[Training, ...]:
        """Return the trainings of a system and a seed.

        Raises:
            FileNotFoundError, ValueError: data are missing, a setting is impossible, or a run has another budget.
        """
        key = (system.name, seed)
        if key not in self._known:
            self._known[key] = self._of(system, seed)
        return self._known[key]

    def _of(self, system: PlannedSystem, seed: int) -> tuple[Training, ...]:
        if system.on == "sources":
            return (self._training(system, seed, "", [self.uri(name) for name in self.plan.sources], ()),)
        if system.on == "all tasks":
            whole = [self.uri(task) for task in self.plan.tasks if not _folds(self.uri(task))]
            if not whole:
                raise ValueError(
                    f"{system.name}: on={system.on!r} has no clips: every task has folds, each of which is tested; "
                    'give on = "each task", which trains a network for each fold'
                )
            return (self._training(system, seed, "", whole, ()),)
        return tuple(
            self._training(system, seed, name, [self.uri(task)], splits)
            for task in self.plan.tasks
            for name, splits in _rounds(self.uri(task)).items()
        )

    def path(self, system: PlannedSystem, seed: int) -> str:
        """Return the folder of a system's networks for a seed, with ``{task}`` in it if each task has a network.

        Raises:
            ValueError: the given runs cover some tasks and not others.
        """
        trainings = self.of(system, seed)
        if system.on != "each task":
            return trainings[0].folder
        given = self._given.get(system.name, "")
        for folder in (partial(_filled, given, seed), partial(self._folder, system, seed)):
            if all(training.folder == folder(training.task) for training in trainings):
                return folder("{task}")
        raise ValueError(f"--use {system.slug}={given} holds runs of some tasks and not of others: give all or none")

    def _folder(self, system: PlannedSystem, seed: int, task: str) -> str:
        return storage.join(self._output, "runs", system.slug, f"seed-{seed}", *([task] if task else []))

    def _training(
        self, system: PlannedSystem, seed: int, task: str, data: Sequence[str], splits: tuple[str, ...]
    ) -> Training:
        earlier = {name: self._builds_on(name, seed, task) for name in (system.teacher, system.init_from) if name}
        values = {
            "name": "-".join([system.slug, f"seed-{seed}", *([task] if task else [])]),
            "seed": seed,
            "data": tuple(data),
            "output": self._taken(system, seed, task) or self._folder(system, seed, task),
            "init_from": earlier[system.init_from].folder if system.init_from else "",
        }
        values |= {"splits": splits} if splits else {}
        values |= {"teacher": earlier[system.teacher].folder} if system.teacher else {}
        config = system.config(values)
        index = ClipIndex.load(config.data, config.splits)
        epoch = self._epoch(config, index)
        budget = self.plan.tflop.of(system)
        epochs = _begun_epochs(config) or epochs_of(budget, epoch)
        if not within_budget(epochs, budget, epoch):
            raise ValueError(
                f"{config.output} was trained for {epochs} epochs of {epoch:.3g} TFLOP, the plan gives {system.name} "
                f"{budget:g} TFLOP: give another --output, or another plan"
            )
        config = config.replace(epochs=epochs)
        teacher = earlier[system.teacher].config if system.teacher else config
        labelling = labelling_operations(config, index, teacher.encoder) / TERA
        return Training(system, seed, task, config, epochs * epoch, labelling, tuple(earlier.values()))

    def _builds_on(self, name: str, seed: int, task: str) -> Training:
        """Return the training of an earlier system to build on: its only one, or that of the task."""
        (training,) = (each for each in self.of(self.plan.system(name), seed) if each.task in ("", task))
        return training

    def _taken(self, system: PlannedSystem, seed: int, task: str) -> str:
        """Return the folder of the given run that is used instead of training; empty if there is none.

        Raises:
            FileNotFoundError: the given run is missing.
            ValueError: the run has a seed that is not in the plan, or another seed than its path names, or is not
                finished.
        """
        given = self._given.get(system.name, "")
        path = _filled(given, seed, task)
        if not path or not is_run(path):
            if given and "{seed}" not in given:
                raise FileNotFoundError(f"--use {system.slug}={given}: {path} is not the folder of a run")
            return ""
        of_run = Run(path).record()["config"]["seed"]
        expected = [seed] if "{seed}" in given else self.plan.seeds_of(system)
        if of_run not in expected:
            seeds = " or ".join(map(str, expected))
            raise ValueError(f"--use {system.slug}={given}: {path} was trained with seed {of_run}, not with {seeds}")
        if (status := Run(path).status()) is None or status.state != "finished":
            raise ValueError(f"--use {system.slug}={given}: {path} is not finished; finish it by its own command")
        if status.epoch < (epochs := Run(path).record()["config"]["epochs"]):
            raise ValueError(
                f"--use {system.slug}={given}: {path} ended early, after {status.epoch} of {epochs} epochs: give a run "
                "that was trained to its end"
            )
        return path if of_run == seed else ""

    def refuse_unfound(self) -> None:
        """Check that every given path with ``{seed}`` is the folder of a run, for at least one seed and task.

        Raises:
            FileNotFoundError: a path has no run; names the path.
        """
        for name, path in self._given.items():
            system = self.plan.system(name)
            tasks = [each for task in self.plan.tasks for each in self._round_names(task)] if "{task}" in path else [""]
            filled = [_filled(path, seed, task) for seed in self.plan.seeds_of(system) for task in tasks]
            if "{seed}" in path and not any(map(is_run, filled)):
                seeds = ", ".join(map(str, self.plan.seeds_of(system)))
                raise FileNotFoundError(f"--use {system.slug}={path} is not a run's folder for any seed of {seeds}")

    def _round_names(self, task: str) -> list[str]:
        """Return the names of a task's rounds; the task's own name if it is not prepared here."""
        is_there = storage.exists(storage.join(self.uri(task), MANIFEST))
        return list(_rounds(self.uri(task))) if is_there else [task]

    def _epoch(self, config: TrainingConfig, index: ClipIndex) -> float:
        """Return the operations of an epoch in 10¹²; counted once for all seeds and tasks with equal heads."""
        parts = config.model_dump(mode="json", include={"method", "encoder", "crop", "front_end", "labels"})
        true_labels = parts.get("labels", {}).get("origin") == "true"
        key = json.dumps([parts, config.data if true_labels else ()], sort_keys=True)
        if key not in self._operations:
            self._operations[key] = clip_operations(config, index)
        return epoch_clips(config, index) * self._operations[key] / TERA


def _filled(path: str, seed: int, task: str) -> str:
    return path.replace("{seed}", str(seed)).replace("{task}", task)


def refuse_other_settings(training: Training) -> None:
    """Check that settings, data, teacher and initial weights of a finished run match the plan.

    Raises:
        ValueError: they differ; names the differences.
    """
    run, facts = Run(training.folder), check(training.config).facts
    changes = run.changes(training.config, facts)
    exported, planned = exported_network(run), training.config.watch.export
    if changes := [*changes, *([f"watch.export: {exported} → {planned}"] if exported != planned else ())]:
        raise ValueError(
            f"{training.folder} was trained with other settings than those of {training.system.name}:\n  "
            + "\n  ".join(changes)
            + "\nGive another --output, or another run"
        )


def expected_minutes(training: Training, finished: Sequence[Training]) -> float | None:
    """Estimate the minutes left of a training from the finished ones of its system, or else of all; None without
    any."""
    alike = [other for other in finished if other.system == training.system] or finished
    rates = [other.minutes / other.tflop for other in alike if other.minutes]
    return max(0.0, statistics.median(rates) * training.tflop - training.minutes) if rates else None


def _begun_epochs(config: TrainingConfig) -> int:
    """Return the epochs that a run was begun with, which its learning rate schedule spans; 0 before it has begun."""
    status = Run(config.output).status()
    finished = status is not None and status.state == "finished"
    if not finished and not CheckpointStore(config.output).committed():
        return 0
    epochs: int = Run(config.output).record()["config"]["epochs"]
    return epochs


def _folds(uri: str) -> list[str]:
    return [split for split in Manifest.load(uri).clips_by_split if role(split) == "fold"]


def _rounds(uri: str) -> dict[str, tuple[str, ...]]:
    """Return the splits that a network may train on, by the name of its task, or of each fold of the task.

    Empty splits stand for a training's default: training clips, and clips in no split.
    """
    if not _folds(uri):
        return {storage.name(uri): ()}
    return {round_.name: round_.training_splits for round_ in load_task(uri).rounds}
