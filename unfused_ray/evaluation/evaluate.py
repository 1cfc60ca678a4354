"""Linear evaluation: every row on every task, one table with intervals, and pictures.

A cell, a row on a task, is a JSON file that is kept: an evaluation that was interrupted, or that is given more rows or
tasks, computes the missing cells alone.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache, cached_property, partial

import joblib
from rich.markup import escape
from rich.table import Table as RichTable

from unfused_ray import logs, storage
from unfused_ray.config import EncoderConfig, EvaluateConfig, FrontEndConfig, flatten
from unfused_ray.embedding.cache import EmbeddingCache
from unfused_ray.embedding.clips import refuse_other_rate
from unfused_ray.evaluation import cells
from unfused_ray.evaluation.cells import Cell, file_names, file_stem
from unfused_ray.evaluation.protocol import FILE, Protocol, load_protocol
from unfused_ray.evaluation.rows import MEAN
from unfused_ray.evaluation.systems import (
    LogMelStatistics,
    System,
    TrainedModel,
    families,
    largest_cost,
    parse_model,
    random_rows,
)
from unfused_ray.evaluation.table import FILES, Table
from unfused_ray.evaluation.tasks import SPLITS, Task, load_task
from unfused_ray.home import home
from unfused_ray.progress import Progress
from unfused_ray.runs.environment import environment
from unfused_ray.runs.provenance import upstream
from unfused_ray.tracking.mlflow import (
    TAGS,
    TrackedRun,
    kept_id,
    log_results,
    masked_values,
    metric_name,
    tags,
    tracking_uri,
)
from unfused_ray.tracking.sender import Tracker

logger = logging.getLogger(__name__)

RECORD = "evaluation.json"
"""What a table was made of and with: configuration and environment, beside it."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation compares, found to fit together."""

    config: EvaluateConfig
    protocol: Protocol
    tasks: tuple[Task, ...]
    systems: tuple[System, ...]

    @property
    def output(self) -> str:
        """Folder of its results."""
        return self.config.output or storage.join(home(), "evaluations", self.config.name)

    @property
    def reference(self) -> str:
        """Row that the others are compared with."""
        models = [system.name for system in self.systems if isinstance(system, TrainedModel)]
        return self.config.reference or (models or [self.systems[0].name])[0]

    @cached_property
    def cache(self) -> EmbeddingCache:
        """Where embeddings are kept."""
        return EmbeddingCache(self.config.cache or storage.join(home(), "embeddings"))


def check(config: EvaluateConfig) -> Evaluation:
    """Read protocol, tasks and descriptions of the models, and refuse what cannot work.

    Raises:
        ValueError, FileNotFoundError: names the field, its value and the rule.
    """
    if not config.tasks:
        raise ValueError("tasks=() names no task: give at least one folder written by jobs/prepare.py")
    tracking_uri(config.tracking)
    protocol = load_protocol(config.protocol)
    tasks = tuple(load_task(uri) for uri in config.tasks)
    _refuse_repeated_tasks(tasks)
    models = [parse_model(text) for text in config.models]
    shapes: list[tuple[EncoderConfig, FrontEndConfig]] = []
    for model in models:
        for round_ in (round_ for task in tasks for round_ in task.rounds):
            shape, front_end = model.shape(round_)
            refuse_other_rate(round_.index, front_end.sample_rate)
            shapes.append((shape, front_end))
    front_end = shapes[0][1] if shapes else FrontEndConfig(**tasks[0].index.manifests[0].config["front_end"])
    shapes = shapes or [(EncoderConfig(), front_end)]
    systems: tuple[System, ...] = (LogMelStatistics(front_end), *random_rows(shapes, config.random_seeds), *models)
    _refuse_repeated_rows(systems)
    names = [system.name for system in systems]
    if config.reference and config.reference not in names:
        raise ValueError(f"reference={config.reference} is no row; the rows are {', '.join(names)}")
    return Evaluation(config, protocol, tasks, systems)


def evaluate(evaluation: Evaluation) -> Table:
    """Fill the cells that are missing, side by side on this machine's cores, and write table, pictures and ``RECORD``.

    All go to the output folder. ``RECORD`` holds the configuration, without credentials, and the environment of the
    newest start.

    Raises:
        ValueError, OSError: a task or a model cannot be read, or a process was ended from outside.
    """
    storage.write_bytes(storage.join(evaluation.output, FILE), evaluation.protocol.text)
    pairs = [(task, system) for task in evaluation.tasks for system in evaluation.systems]
    found: dict[tuple[str, str], Cell] = {}
    missing = []
    for task, system in pairs:
        if cell := cells.read(evaluation.output, task, system, evaluation.protocol):
            found[system.name, task.name] = cell
        else:
            missing.append((task, system))
    with Progress("cells", len(pairs), "cells", done=len(found)) as bar:
        bar.update(len(found))
        for filled in _filled(evaluation, missing):
            found |= filled
            row, task_name = next(reversed(filled))
            bar.update(len(found), task=task_name, row=row)
    table = Table.of(evaluation.protocol, evaluation.tasks, evaluation.systems, found, evaluation.reference)
    table.write(evaluation.output)
    record = {"config": masked_values(evaluation.config.model_dump(mode="json")), "environment": environment()}
    storage.write_bytes(storage.join(evaluation.output, RECORD), json.dumps(record, indent=1).encode())
    return table


def _filled(evaluation: Evaluation, missing: Sequence[tuple[Task, System]]) -> Iterator[dict[tuple[str, str], Cell]]:
    """Cells by row and task, as they are done: those that share their vectors at a time."""
    parts = [
        (task, family)
        for task in evaluation.tasks
        for family in families([system for other, system in missing if other is task])
    ]
    for task, family in parts:  # what a source lacks is computed once, on Ray, and not by each process
        for round_ in task.rounds:
            family[0].statistics(round_)
    # The longest first, or a process may be left alone with it at the end.
    parts.sort(key=lambda part: len(part[0].splits) * sum(system.num_networks for system in part[1]), reverse=True)
    processes = min(evaluation.config.processes or joblib.cpu_count(), max(1, len(parts)))
    parent = os.getpid() if processes > 1 else 0
    fill = partial(_fill, evaluation.output, evaluation.protocol, evaluation.cache, parent)
    filling = joblib.Parallel(processes, return_as="generator_unordered")
    try:
        with warnings.catch_warnings():
            # Such a process is replaced when it has grown, which is no news for who reads the table.
            warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
            yield from filling(joblib.delayed(fill)(task, family) for task, family in parts)
    except BrokenProcessPool as error:
        raise OSError(
            f"one of {processes} processes that filled cells was ended from outside, perhaps for want of memory: the "
            f"same command goes on from the cells that are finished, with fewer at a time by processes={processes - 1}"
        ) from error


def _fill(
    output: str, protocol: Protocol, cache: EmbeddingCache, parent: int, task: Task, family: list[System]
) -> dict[tuple[str, str], Cell]:
    """Fill the cells of some rows on a task; ``parent`` is the process that waits for this one, 0 if none does."""
    if parent:
        end_with(parent)
        if not logging.getLogger().handlers:
            logs.configure()
    return {(system.name, task.name): cells.fill(output, task, system, protocol, cache) for system in family}


@cache
def end_with(parent: int) -> None:
    """Let this process end within a second of its parent: loky asks for it between two cells alone, minutes later.

    Whoever stops a job, kill or ``ray job stop``, would leave processes behind that go on computing.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)  # all writes are atomic

    threading.Thread(target=watch, name="end with the parent", daemon=True).start()


def describe(evaluation: Evaluation) -> RichTable:
    """What :func:`evaluate` would do."""
    table = RichTable("", "", title=evaluation.output, title_justify="left", show_header=False)
    for task in evaluation.tasks:
        splits = ", ".join(f"{int((task.splits == split).sum()):,} {split}" for split in task.folds or SPLITS)
        table.add_row(f"task {task.name}", f"{len(task.class_names)} classes; {splits}")
    for system in evaluation.systems:
        cost = largest_cost(system, evaluation.tasks)
        table.add_row(escape(system.name), f"{cost[0]:,} parameters" if cost else "no network")
    table.add_row("reference", escape(evaluation.reference))
    table.add_row("protocol", evaluation.protocol.sha256)
    return table


def track(evaluation: Evaluation, table: Table, parent: str = "") -> None:
    """Send the table to MLflow: accuracies of all cells, the files, and those of its rows in a folder a task.

    An end of an interval that cannot be known is no metric. Given again, an evaluation goes on in its MLflow run, which
    keeps the parameters that it was begun with.

    Args:
        evaluation: that was done.
        table: that it gave.
        parent: id of the run that it is shown under; '' is none.
    """
    output = evaluation.output
    run = _tracked_run(evaluation, parent)
    tracker = Tracker(run)
    for row in table.rows:
        for heading, interval in row.accuracy.items():
            bounds = {"accuracy": interval.value, "low": interval.low, "high": interval.high}
            known = {name: value for name, value in bounds.items() if not math.isnan(value)}
            tracker.log({metric_name(f"{row.name}/{heading}/{name}"): value for name, value in known.items()}, 0)
    if lost := tracker.close():
        logger.warning("%d figures did not reach the tracking server; %s has them all", lost, output)
    log_results(run, [storage.join(output, name) for name in (FILE, *FILES)], {})
    names = {name for system in evaluation.systems for name in file_names(system)}
    for task in table.tasks:  # the folder may hold rows of another evaluation
        files = [file for file in storage.list_files(storage.join(output, task)) if storage.name(file) in names]
        log_results(run, files, {}, folder=task)


def _tracked_run(evaluation: Evaluation, parent: str) -> TrackedRun:
    config, models = evaluation.config, [s for s in evaluation.systems if isinstance(s, TrainedModel)]
    rounds = [round_ for task in evaluation.tasks for round_ in task.rounds]
    networks = dict.fromkeys(model.uri(round_) for model in models for round_ in rounds)
    data = [task.index.manifests[0] for task in evaluation.tasks]
    return TrackedRun(
        uri=tracking_uri(config.tracking),
        experiment=config.tracking.experiment,
        name=config.name,
        id=kept_id(evaluation.output),
        config=config.model_dump(mode="json"),
        params=flatten(config.model_dump(mode="json")),
        tags=tags("evaluate", evaluation.output, data, [upstream(uri) for uri in networks])
        | {f"{TAGS}protocol": evaluation.protocol.sha256},
        parent=parent,
    )


def _refuse_repeated_tasks(tasks: Sequence[Task]) -> None:
    names = [task.name for task in tasks]
    for task in tasks:
        if names.count(task.name) > 1 or task.name == MEAN:
            raise ValueError(
                f"tasks={task.uri}: another column of the table is called {task.name!r}; a task is called as its "
                "folder is: rename the folder"
            )


def _refuse_repeated_rows(systems: Sequence[System]) -> None:
    stems = [file_stem(system) for system in systems]
    for system in systems:
        if stems.count(file_stem(system)) > 1 or "/" in system.name:
            raise ValueError(
                f"models: {system.name!r} cannot be the name of one row alone (it is another's too, or has a slash): "
                "name each model by NAME=PATH"
            )
