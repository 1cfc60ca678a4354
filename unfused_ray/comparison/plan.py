"""Checks the trainings and evaluations of a comparison, and lists them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from unfused_ray import paths, storage
from unfused_ray.comparison.freeze import refuse_changes
from unfused_ray.comparison.processes import command
from unfused_ray.comparison.results import model_name
from unfused_ray.comparison.table_plan import PlannedSystem, find_plan, load_plan
from unfused_ray.comparison.trainings import Training, Trainings, expected_minutes, refuse_other_settings
from unfused_ray.comparison.validation import MARKDOWN
from unfused_ray.config import CompareConfig, EvaluateConfig, TrackingConfig, TrainingConfig
from unfused_ray.evaluation_job import plan as evaluation_plan
from unfused_ray.home import home, local_home
from unfused_ray.machine.threads import usable_cores
from unfused_ray.tracking import store


class ComparisonPlan:
    """The trainings and evaluations that a comparison runs for a results table.

    Args:
        config: configuration of the comparison.

    Raises:
        ValueError, FileNotFoundError: the plan, or a choice from it, is impossible.
    """

    def __init__(self, config: CompareConfig) -> None:
        config = paths.check(config)
        path = find_plan(config.plan)
        self.config, self.table = config, load_plan(path)
        self.output = config.output or storage.join(home(), "tables", self.table.name)
        self.protocol = storage.absolute(str(path.parent / self.table.protocol)) if self.table.protocol else ""
        refuse_changes(self.table, self.protocol, self.output)
        self.systems = self.table.select(config.only)
        if unknown := set(config.seeds) - set(self.table.seeds):
            raise ValueError(f"seeds={sorted(unknown)} are not in the plan, whose seeds are {self.table.seeds}")
        self.seeds: Sequence[int] = config.seeds or self.table.seeds
        pairs = [each.partition("=") for each in config.use]
        given = {self.table.system(name).slug: storage.absolute(folder) for name, _, folder in pairs if folder}
        if len(given) < len(config.use):
            raise ValueError(f"use={config.use}: each must be SYSTEM=FOLDER, and each system given once")
        unused = {self.table.system(slug).name for slug in given} - {system.name for system in self.systems}
        if unused and not {"validate", "evaluate"} & set(config.stages):
            raise ValueError(
                f"use={config.use} has no effect on {min(unused)} with only={config.only}, which neither trains it nor "
                f"builds on it, and stages={config.stages}: leave it out"
            )
        self.trainings = Trainings(self.table, config.data_root, self.output, given)
        self.trainings.refuse_unfound()
        self.against = self.table.row(config.against) if config.against else ""
        self.num_jobs = config.processes
        self.threads = max(1, usable_cores() // self.num_jobs) if self.num_jobs > 1 else 0
        logs = self.output if storage.is_local(self.output) else storage.join(local_home(), "tables", self.table.name)
        self.logs = Path(logs) / "logs"

    def chosen(self) -> list[Training]:
        """Return the trainings of the chosen systems and seeds, each after those that it builds on.

        Raises:
            ValueError: a finished training has other settings than the plan.
        """
        found = [
            training
            for seed in self.seeds
            for system in self.systems
            if seed in self.table.seeds_of(system)
            for training in self.trainings.of(system, seed)
        ]
        for training in found:
            if training.state == "finished":
                refuse_other_settings(training)
        return found

    def refuse_impossible(self) -> None:
        """Refuse trainings, tasks and encoders of others with which a stage would end, before anything is trained.

        Raises:
            FileNotFoundError, ValueError: names the training, task or encoder and the reason.
        """
        stages = self.config.stages
        if "train" in stages:
            for training in self.to_train():
                self.as_run(training.config)
        if {"validate", "evaluate"} & set(stages):
            evaluation_plan.check(self.evaluation({}, 0, *self.table.tasks))
            if "train" not in stages:
                finished = self.some_finished()
                if "evaluate" in stages:
                    self.refuse_untrained_against(finished)

    def to_train(self) -> list[Training]:
        """Return the chosen trainings that are not finished."""
        return [training for training in self.chosen() if training.state != "finished"]

    def refuse_untrained_against(self, finished: dict[str, list[int]]) -> None:
        """Refuse to compare with a system whose networks are not all trained.

        Raises:
            ValueError: names the system.
        """
        if self.against in [system.name for system in self.table.systems] and self.against not in finished:
            raise ValueError(f"against={self.against}: not all networks of {self.against} are trained yet")

    def as_run(self, config: TrainingConfig) -> TrainingConfig:
        """Return the configuration to start: in one process, without Ray, if several trainings share this machine."""
        if not self.threads or os.environ.get("RAY_ADDRESS"):
            return config
        if config.runtime.gpus_per_worker:
            raise ValueError(
                f"processes={self.num_jobs} without RAY_ADDRESS would train {config.name}, which is for "
                f"{config.runtime.num_workers} workers with GPUs, on {self.threads} threads of this machine: submit "
                "the table to a cluster (ray job submit), or give --processes 1"
            )
        return config.replace({"runtime.kind": "in-process", "runtime.threads": self.threads})

    def settings(self, config: TrainingConfig | EvaluateConfig) -> str:
        """Return the file from which the process of a job reads its settings."""
        return storage.join(self.output, "settings", f"{config.name}.json")

    def finished(self) -> dict[str, list[int]]:
        """Return the seeds whose trainings are all finished, by system, including systems that are not chosen."""
        seeds = {
            system.name: [seed for seed in self.table.seeds_of(system) if self._is_finished(system, seed)]
            for system in self.table.systems
        }
        return {name: found for name, found in seeds.items() if found}

    def _is_finished(self, system: PlannedSystem, seed: int) -> bool:
        trainings = self.trainings.of(system, seed)
        if any(training.state != "finished" for training in trainings):
            return False
        for training in trainings:
            refuse_other_settings(training)
        return True

    def some_finished(self) -> dict[str, list[int]]:
        """Return the seeds of :meth:`finished`.

        Raises:
            ValueError: there are none.
        """
        if found := self.finished():
            return found
        raise ValueError(f"{self.output}: no row has all of its networks trained, so there is nothing to evaluate")

    @property
    def evaluations_folder(self) -> str:
        """Folder of the evaluations, which has one folder per task."""
        return storage.join(self.output, "evaluations")

    def evaluations(self, finished: dict[str, list[int]], random_seeds: int) -> list[EvaluateConfig]:
        """Return one evaluation per task, of all finished encoders and random networks."""
        return [self.evaluation(finished, random_seeds, task) for task in self.table.tasks]

    def evaluation(self, finished: dict[str, list[int]], random_seeds: int, *tasks: str) -> EvaluateConfig:
        """Return the evaluation of all finished encoders and random networks on some tasks."""
        models = [
            f"{model_name(system, seed)}={self.trainings.path(system, seed)}"
            for system in self.table.systems
            for seed in finished.get(system.name, ())
        ]
        return EvaluateConfig(
            name=f"{self.table.name}-{'-'.join(tasks)}",
            models=(*models, *(f"{peer.name}={peer.embedder}" for peer in self.table.peers)),
            tasks=tuple(self.trainings.uri(task) for task in tasks),
            output=storage.join(self.evaluations_folder, *tasks),
            random_seeds=random_seeds,
            protocol=self.protocol,
            processes=self.threads,
            shared_clips=self.config.shared_clips,
        )

    def listing(self) -> Table:
        """Return the state of every chosen training, and the minutes left as estimated from finished trainings."""
        chosen = self.chosen()
        done = [training for training in chosen if training.state == "finished"]
        table = Table(title=self.output, title_justify="left")
        table.add_column("training", overflow="fold")  # only this column may wrap in a narrow terminal
        table.add_column("state", no_wrap=True)
        for heading in ("epochs", "TFLOP", "minutes", "left"):
            table.add_column(heading, justify="right", no_wrap=True)
        total = 0.0
        for training in chosen:
            left = 0.0 if training in done else expected_minutes(training, done)
            total += left or 0.0
            cells = [training.name, training.state, str(training.config.epochs), f"{training.tflop:.3g}"]
            cells += [f"{training.minutes:.1f}" if training.minutes else "", "" if left is None else f"{left:.0f}"]
            table.add_row(*cells)
        table.add_section()
        known = f"{total:.0f}" if done else "unknown"
        table.add_row(f"{len(done)} of {len(chosen)} finished", "", "", "", "", known)
        return table

    def commands(self) -> list[str]:
        """Return the processes that a run would start, in order."""
        lines = []
        if "train" in self.config.stages:
            lines += [shlex.join(command(t.system.job, self.settings(t.config))) for t in self.to_train()]
        if "validate" in self.config.stages:
            lines.append(f"validation clips, in this process: {storage.join(self.output, MARKDOWN)}")
        if "evaluate" in self.config.stages:
            lines += [shlex.join(command("evaluate", self.settings(config))) for config in self.evaluations({}, 0)]
        return lines


def check(config: CompareConfig) -> ComparisonPlan:
    """Read the plan and refuse systems that cannot be trained or compared; nothing is written.

    Raises:
        ValueError, FileNotFoundError: names the field, its value and the rule.
    """
    return ComparisonPlan(config)


def describe(plan: ComparisonPlan) -> Group:
    """Show the state of every training, and the processes that would be started.

    Raises:
        FileNotFoundError, ValueError: a run would be refused.
    """
    plan.refuse_impossible()
    lines = [f"tracker: {store.describe(TrackingConfig())}", *plan.commands()]
    return Group(plan.listing(), Text("\n".join(lines), no_wrap=True, overflow="ignore"))
