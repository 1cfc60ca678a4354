"""The job that compares: trains what its plan names, reads every frozen encoder on every task, and writes the table.

The prepared sources and tasks of the plan lie in folders of their names below ``data_root``. Trainings and evaluations
are the ordinary jobs, each a process that writes to a log; given again, a comparison resumes. Where ``RAY_ADDRESS`` is
set they are drivers on that cluster. Rows are shown on validation clips by this process, with processes of its own.

Before the first test clip is read, the plan's digest and the protocol's hash are written to frozen.json in the output
folder; after that a plan or protocol that differs is refused: it is another table, in another folder.
"""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from unfused_ray import evaluation_job, paths, storage
from unfused_ray.comparison import page, validation
from unfused_ray.comparison.freeze import freeze, refuse_changes
from unfused_ray.comparison.plan import PlannedSystem, find_plan, load_plan
from unfused_ray.comparison.processes import JobProcesses, command
from unfused_ray.comparison.results import ResultsTable, join_seeds, model_name, results
from unfused_ray.comparison.trainings import Training, Trainings, expected_minutes, refuse_other_settings
from unfused_ray.comparison.validation import ValidationScores, ValidationTable
from unfused_ray.config import CompareConfig, EvaluateConfig, TrackingConfig, TrainingConfig
from unfused_ray.evaluation.tasks import load_task, refuse_shared
from unfused_ray.home import home, local_home
from unfused_ray.threads import usable_cores
from unfused_ray.tracking import store

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ComparisonResult:
    """A comparison whose trainings have ended."""

    folder: str
    """Folder of the table and its runs, by path or URI."""
    num_failed: int = 0
    """Trainings that failed, or that build on one that did."""
    validation: ValidationTable | None = None
    """The trained rows on validation clips; None if they were not asked for."""
    table: ResultsTable | None = None
    """The table; None if it was not asked for."""
    against: ResultsTable | None = None
    """The table with differences from the row that was asked for; None without one."""


class ComparisonPlan:
    """A results table: the trainings and evaluations of its plan, and those of them that are missing.

    Args:
        config: of the comparison.

    Raises:
        ValueError, FileNotFoundError: the plan, or a choice from it, cannot be.
    """

    def __init__(self, config: CompareConfig) -> None:
        config = paths.check(config)
        path = find_plan(config.plan)
        self.config, self.plan = config, load_plan(path)
        self.output = config.output or storage.join(home(), "tables", self.plan.name)
        self.protocol = storage.absolute(str(path.parent / self.plan.protocol)) if self.plan.protocol else ""
        refuse_changes(self.plan, self.protocol, self.output)
        self.systems = self.plan.select(config.only)
        if unknown := set(config.seeds) - set(self.plan.seeds):
            raise ValueError(f"seeds={sorted(unknown)} are not of the plan, whose seeds are {self.plan.seeds}")
        self.seeds: Sequence[int] = config.seeds or self.plan.seeds
        pairs = [each.partition("=") for each in config.use]
        given = {self.plan.system(name).slug: storage.absolute(folder) for name, _, folder in pairs if folder}
        if len(given) < len(config.use):
            raise ValueError(f"use={config.use}: each must be SYSTEM=FOLDER, a system once")
        self.trainings = Trainings(self.plan, config.data_root, self.output, given)
        self.trainings.refuse_unfound()
        self.against = self.plan.row(config.against) if config.against else ""
        self.num_jobs = config.processes
        self.threads = max(1, usable_cores() // self.num_jobs) if self.num_jobs > 1 else 0
        logs = self.output if storage.is_local(self.output) else storage.join(local_home(), "tables", self.plan.name)
        self.jobs = JobProcesses(Path(logs) / "logs", self.threads)

    def chosen(self) -> list[Training]:
        """The trainings of the chosen systems and seeds, each behind those that it builds on.

        Raises:
            ValueError: a finished one is of other settings than the plan's.
        """
        found = [
            training
            for seed in self.seeds
            for system in self.systems
            if seed in self.plan.seeds_of(system)
            for training in self.trainings.of(system, seed)
        ]
        for training in found:
            if training.state == "finished":
                refuse_other_settings(training)
        return found

    def refuse_tasks(self) -> None:
        """Refuse tasks that cannot be evaluated, which no training should come before.

        Raises:
            FileNotFoundError, ValueError: names the task and why.
        """
        for name in self.plan.tasks:
            task = load_task(self.trainings.uri(name))
            if self.config.shared_clips == "refuse":
                refuse_shared(task)

    def train(self) -> int:
        """Train what is not finished, and return how many failed; what builds on a failed training is left out.

        Raises:
            ValueError: a finished training is of other settings than the plan's, or one is for a cluster with GPUs that
                is not there.
            Exception: what is no failure of a training, but a fault of the project; the other trainings are stopped.
        """
        chosen = self.chosen()
        done = [training for training in chosen if training.state == "finished"]
        waiting = [training for training in chosen if training not in done]
        for training in waiting:
            self._as_run(training.config)
        running: dict[Future[None], Training] = {}
        failed: dict[str, OSError | ValueError] = {}  # by folder
        with self._pool() as pool:
            while waiting or running:
                for training in tuple(waiting):
                    needs = {need.folder for need in training.needs}
                    if broken := sorted(needs & failed.keys()):
                        failed[training.folder] = failed[broken[0]]
                        waiting.remove(training)
                    elif len(running) < self.num_jobs and not needs & {t.folder for t in (*waiting, *running.values())}:
                        running[pool.submit(self._train, training, done)] = training
                        waiting.remove(training)
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    training = running.pop(future)
                    try:
                        future.result()
                    except (OSError, ValueError) as error:
                        logger.error("failed: %s", error)
                        logger.debug("%s failed", training.name, exc_info=True)
                        failed[training.folder] = error
        return len(failed)

    def _train(self, training: Training, done: list[Training]) -> None:
        minutes = expected_minutes(training, done)
        hope = f", about {minutes:.0f} min" if minutes is not None else ""
        logger.info("%s: %d epochs, %.3g TFLOP%s", training.name, training.config.epochs, training.tflop, hope)
        started = time.monotonic()
        storage.write_bytes(self._settings(training.config), self._as_run(training.config).model_dump_json().encode())
        self.jobs.run(training.system.job, self._settings(training.config), training.config.name)
        logger.info("%s: %.1f min", training.name, (time.monotonic() - started) / 60)
        done.append(training)

    def _as_run(self, config: TrainingConfig) -> TrainingConfig:
        """The configuration to start: in one process if several run on this machine, whose cores Ray would share."""
        if not self.threads or os.environ.get("RAY_ADDRESS"):
            return config
        if config.runtime.gpus_per_worker:
            raise ValueError(
                f"processes={self.num_jobs} without RAY_ADDRESS would train {config.name}, which is for "
                f"{config.runtime.num_workers} workers with GPUs, on {self.threads} threads of this machine: submit "
                "the table to a cluster (ray job submit), or give --processes 1"
            )
        return config.replace({"runtime.kind": "in-process", "runtime.threads": self.threads})

    def _settings(self, config: TrainingConfig | EvaluateConfig) -> str:
        return storage.join(self.output, "settings", f"{config.name}.json")

    @contextmanager
    def _pool(self) -> Iterator[ThreadPoolExecutor]:
        """Threads that each wait for a job; an interruption stops the jobs at a point to resume from."""
        with ThreadPoolExecutor(self.num_jobs) as pool:
            try:
                yield pool
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.jobs.stop()
                raise

    def finished(self) -> dict[str, list[int]]:
        """Seeds whose trainings are all finished, by system; those that are not chosen too."""
        seeds = {
            system.name: [seed for seed in self.plan.seeds_of(system) if self._is_finished(system, seed)]
            for system in self.plan.systems
        }
        return {name: found for name, found in seeds.items() if found}

    def _is_finished(self, system: PlannedSystem, seed: int) -> bool:
        trainings = self.trainings.of(system, seed)
        if any(training.state != "finished" for training in trainings):
            return False
        for training in trainings:
            refuse_other_settings(training)
        return True

    def _some_finished(self) -> dict[str, list[int]]:
        if found := self.finished():
            return found
        raise ValueError(f"{self.output} has no row of which all networks are trained: there is nothing to evaluate")

    def validate(self) -> ValidationTable:
        """Show every finished encoder and random networks on validation clips, and write that as ``validation.md``.

        Raises:
            ValueError: nothing is finished, no task has validation clips, or a run is of other settings.
        """
        finished = self._some_finished()
        tasks, notes = validation.validation_tasks([self.trainings.uri(name) for name in self.plan.tasks])
        if not tasks:
            raise ValueError(f"{'. '.join(notes)}: there is nothing to validate on")
        names = [task.name for task in tasks]
        config = self._evaluation(finished, self.plan.random_seeds, *names).replace({"processes": self.num_jobs})
        asked = evaluation_job.check(config)
        found = validation.validated(asked, tasks, storage.join(self.output, validation.FOLDER))
        systems = join_seeds(self.trainings, finished, asked.systems, tasks, found, ValidationScores.joined)
        table = validation.validation_table(asked.protocol, tasks, systems, found, notes)
        storage.write_bytes(storage.join(self.output, validation.MARKDOWN), table.to_markdown().encode())
        return table

    def evaluations(self, finished: dict[str, list[int]], random_seeds: int) -> list[EvaluateConfig]:
        """One evaluation a task, of all finished encoders and random networks."""
        return [self._evaluation(finished, random_seeds, task) for task in self.plan.tasks]

    def _evaluation(self, finished: dict[str, list[int]], random_seeds: int, *tasks: str) -> EvaluateConfig:
        models = [
            f"{model_name(system, seed)}={self.trainings.path(system, seed)}"
            for system in self.plan.systems
            for seed in finished.get(system.name, ())
        ]
        return EvaluateConfig(
            name=f"{self.plan.name}-{'-'.join(tasks)}",
            models=(*models, *(f"{peer.name}={peer.embedder}" for peer in self.plan.peers)),
            tasks=tuple(self.trainings.uri(task) for task in tasks),
            output=storage.join(self._evaluations, *tasks),
            random_seeds=random_seeds,
            protocol=self.protocol,
            processes=self.threads,
            shared_clips=self.config.shared_clips,
        )

    @property
    def _evaluations(self) -> str:
        """Folder of the evaluations, one per task."""
        return storage.join(self.output, "evaluations")

    def evaluate(self) -> tuple[ResultsTable, ResultsTable | None]:
        """Read every finished encoder on every task and write the table; then random networks, and write it again.

        Returns:
            The table, and one with differences from the row ``against``, if there is one.

        Raises:
            ValueError: nothing is finished, or a run is of other settings than the plan's.
            ChildProcessError: a job failed.
        """
        finished = self._some_finished()
        if self.against in [system.name for system in self.plan.systems] and self.against not in finished:
            raise ValueError(f"against={self.against}: not all networks of {self.against} are trained yet")
        freeze(self.plan, self.protocol, self.output)
        # Random networks are many, and tell nothing that the first look at a table waits for.
        for random_seeds in dict.fromkeys((0, self.plan.random_seeds)):
            table = self._read(finished, random_seeds)
        if self.against and self.against not in [line.row.name for line in table.rows]:
            raise ValueError(f"against={self.against}: the table has no row {self.against}")
        if not self.against:
            return table, None
        against = self._results(finished, self.plan.random_seeds, self.against)
        page.write_against(against, self.output)
        return table, against

    def _read(self, finished: dict[str, list[int]], random_seeds: int) -> ResultsTable:
        with self._pool() as pool:
            futures = []
            for config in self.evaluations(finished, random_seeds):
                storage.write_bytes(self._settings(config), config.model_dump_json().encode())
                futures.append(pool.submit(self.jobs.run, "evaluate", self._settings(config), config.name))
            for future, task in zip(futures, self.plan.tasks, strict=True):
                future.result()
                logger.info("%s: %s read", task, "random networks are" if random_seeds else "every finished encoder is")
        table = self._results(finished, random_seeds, self.plan.reference)
        page.write(table, self.output)
        return table

    def _results(self, finished: dict[str, list[int]], random_seeds: int, reference: str) -> ResultsTable:
        config = self._evaluation(finished, random_seeds, *self.plan.tasks)
        return results(self.trainings, finished, config, self._evaluations, reference)

    def listing(self) -> Table:
        """State of every chosen training, and the minutes left, as finished trainings tell."""
        chosen = self.chosen()
        done = [training for training in chosen if training.state == "finished"]
        table = Table(title=self.output, title_justify="left")
        table.add_column("training", overflow="fold")  # the one that may wrap, in a narrow terminal
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
        """The processes that a run would start, in their order."""
        lines = []
        if "train" in self.config.stages:
            left = [training for training in self.chosen() if training.state != "finished"]
            lines += [shlex.join(command(t.system.job, self._settings(t.config))) for t in left]
        if "validate" in self.config.stages:
            lines.append(f"validation clips, in this process: {storage.join(self.output, validation.MARKDOWN)}")
        if "evaluate" in self.config.stages:
            lines += [shlex.join(command("evaluate", self._settings(config))) for config in self.evaluations({}, 0)]
        return lines


def check(config: CompareConfig) -> ComparisonPlan:
    """Read the plan and refuse what cannot be trained or compared; nothing is written.

    Raises:
        ValueError, FileNotFoundError: names the field, its value and the rule.
    """
    return ComparisonPlan(config)


def describe(plan: ComparisonPlan) -> Group:
    """Show the state of every training, and the processes that would be run."""
    lines = [f"tracker: {store.describe(TrackingConfig())}", *plan.commands()]
    return Group(plan.listing(), Text("\n".join(lines), no_wrap=True, overflow="ignore"))


def run(plan: ComparisonPlan) -> ComparisonResult:
    """Train what is not finished, show it on validation clips, read the test clips and write the table, as is asked.

    Raises:
        ValueError: a task cannot be evaluated, nothing is finished that could be, or a run is of other settings than
            the plan's.
        ChildProcessError: an evaluation failed.
    """
    if {"validate", "evaluate"} & set(plan.config.stages):
        plan.refuse_tasks()
    failed = plan.train() if "train" in plan.config.stages else 0
    validated = plan.validate() if "validate" in plan.config.stages else None
    tables = plan.evaluate() if "evaluate" in plan.config.stages else (None, None)
    return ComparisonResult(plan.output, failed, validated, *tables)
