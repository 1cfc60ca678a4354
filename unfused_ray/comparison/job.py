"""The job that compares: trains the systems of its plan, scores every frozen encoder on every task, writes the table.

The prepared sources and tasks of the plan are in folders of their names below ``data_root``. Trainings and evaluations
are the ordinary jobs, each a process that writes to a log. If the command is given again, a comparison resumes. If
``RAY_ADDRESS`` is set, the jobs are drivers on that cluster. Rows are scored on validation clips by this process and
its own subprocesses.

Before the first test clip is read, the plan's digest and the protocol's hash are written to frozen.json in the output
folder. After that, a plan or protocol that differs is refused: it is another table, and needs another folder.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass

from unfused_ray import storage
from unfused_ray.comparison import page, validation
from unfused_ray.comparison.freeze import freeze
from unfused_ray.comparison.plan import ComparisonPlan
from unfused_ray.comparison.processes import JobProcesses
from unfused_ray.comparison.results import ResultsTable, join_seeds, results
from unfused_ray.comparison.trainings import Training, expected_minutes
from unfused_ray.comparison.validation import ValidationScores, ValidationTable
from unfused_ray.evaluation_job import plan as evaluation_plan

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ComparisonResult:
    """A comparison whose trainings have ended."""

    folder: str
    """Folder of the table and its runs, by path or URI."""
    num_failed: int = 0
    """Number of trainings that failed, or that build on one that did."""
    validation: ValidationTable | None = None
    """The trained rows on validation clips; None if they were not requested."""
    table: ResultsTable | None = None
    """The table; None if it was not requested."""
    against: ResultsTable | None = None
    """The table with differences from the requested row ``against``; None without one."""


def run(plan: ComparisonPlan) -> ComparisonResult:
    """Run the configured stages: train what is not finished, score it on validation clips, then on test clips.

    Raises:
        ValueError: a task, or an encoder of others, cannot be evaluated, no trained row can be evaluated yet, or a run
            has other settings than the plan.
        ChildProcessError: an evaluation failed.
    """
    plan.refuse_impossible()
    jobs = JobProcesses(plan.logs, plan.threads)
    failed = train(plan, jobs) if "train" in plan.config.stages else 0
    if failed and not plan.finished():
        return ComparisonResult(plan.output, failed)  # the log names the failures; there is nothing to score
    validated = validate(plan) if "validate" in plan.config.stages else None
    tables = evaluate(plan, jobs) if "evaluate" in plan.config.stages else (None, None)
    return ComparisonResult(plan.output, failed, validated, *tables)


def train(plan: ComparisonPlan, jobs: JobProcesses) -> int:
    """Train what is not finished; return how many trainings failed. Those that build on a failed one are left out.

    Raises:
        ValueError: a finished training has other settings than the plan.
        Exception: a fault of the project rather than a failure of a training; the other trainings are stopped.
    """
    chosen = plan.chosen()
    done = [training for training in chosen if training.state == "finished"]
    waiting = [training for training in chosen if training not in done]
    running: dict[Future[None], Training] = {}
    failed: dict[str, OSError | ValueError] = {}  # by folder
    with jobs.pool(plan.num_jobs) as pool:
        while waiting or running:
            for training in tuple(waiting):
                needs = {need.folder for need in training.needs}
                if broken := sorted(needs & failed.keys()):
                    failed[training.folder] = failed[broken[0]]
                    waiting.remove(training)
                elif len(running) < plan.num_jobs and not needs & {t.folder for t in (*waiting, *running.values())}:
                    running[pool.submit(_train, plan, jobs, training, done)] = training
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


def _train(plan: ComparisonPlan, jobs: JobProcesses, training: Training, done: list[Training]) -> None:
    minutes = expected_minutes(training, done)
    hope = f", about {minutes:.0f} min" if minutes is not None else ""
    logger.info("%s: %d epochs, %.3g TFLOP%s", training.name, training.config.epochs, training.tflop, hope)
    started = time.monotonic()
    storage.write_bytes(plan.settings(training.config), plan.as_run(training.config).model_dump_json().encode())
    jobs.run(training.system.job, plan.settings(training.config), training.config.name)
    logger.info("%s: %.1f min", training.name, (time.monotonic() - started) / 60)
    done.append(training)


def validate(plan: ComparisonPlan) -> ValidationTable:
    """Score every finished encoder and random networks on validation clips, and write ``validation.md``.

    Raises:
        ValueError: nothing is finished, no task has validation clips, or a run has other settings than the plan.
    """
    finished = plan.some_finished()
    tasks, notes = validation.validation_tasks([plan.trainings.uri(name) for name in plan.table.tasks])
    if not tasks:
        raise ValueError(f"{'. '.join(notes)}: there is nothing to validate on")
    names = [task.name for task in tasks]
    config = plan.evaluation(finished, plan.table.random_seeds, *names).replace({"processes": plan.num_jobs})
    evaluation = evaluation_plan.check(config)
    found = validation.validated(evaluation, tasks, storage.join(plan.output, validation.FOLDER))
    systems = join_seeds(plan.trainings, finished, evaluation.systems, tasks, found, ValidationScores.joined)
    table = validation.validation_table(evaluation.protocol, tasks, systems, found, notes)
    storage.write_bytes(storage.join(plan.output, validation.MARKDOWN), table.to_markdown().encode())
    return table


def evaluate(plan: ComparisonPlan, jobs: JobProcesses) -> tuple[ResultsTable, ResultsTable | None]:
    """Score every finished encoder on every task and write the table; then random networks, and write it again.

    Returns:
        The table, and one with differences from the row ``against``, if there is one.

    Raises:
        ValueError: nothing is finished, or a run has other settings than the plan.
        ChildProcessError: a job failed.
    """
    finished = plan.some_finished()
    plan.refuse_untrained_against(finished)
    freeze(plan.table, plan.protocol, plan.output)
    # Random networks are many, and a first look at the table does not need them.
    for random_seeds in dict.fromkeys((0, plan.table.random_seeds)):
        table = _read(plan, jobs, finished, random_seeds)
    if plan.against and plan.against not in [line.row.name for line in table.rows]:
        raise ValueError(f"against={plan.against}: the table has no row {plan.against}")
    if not plan.against:
        return table, None
    against = _results(plan, finished, plan.table.random_seeds, plan.against)
    page.write_against(against, plan.output)
    return table, against


def _read(plan: ComparisonPlan, jobs: JobProcesses, finished: dict[str, list[int]], random_seeds: int) -> ResultsTable:
    with jobs.pool(plan.num_jobs) as pool:
        futures = []
        for config in plan.evaluations(finished, random_seeds):
            storage.write_bytes(plan.settings(config), config.model_dump_json().encode())
            futures.append(pool.submit(jobs.run, "evaluate", plan.settings(config), config.name))
        for future, task in zip(futures, plan.table.tasks, strict=True):
            future.result()
            logger.info("%s: %s read", task, "random networks are" if random_seeds else "every finished encoder is")
    table = _results(plan, finished, random_seeds, plan.table.reference)
    page.write(table, plan.output)
    return table


def _results(plan: ComparisonPlan, finished: dict[str, list[int]], random_seeds: int, reference: str) -> ResultsTable:
    config = plan.evaluation(finished, random_seeds, *plan.table.tasks)
    return results(plan.trainings, finished, config, plan.evaluations_folder, reference)
