"""Linear evaluation: every row on every task, one table with intervals, and pictures.

A cell, a row on a task, is a JSON file that is kept: an evaluation that was interrupted, or that is given more rows or
tasks, computes the missing cells alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from rich.table import Table as RichTable

from unfused_ray import storage
from unfused_ray.config import EncoderConfig, EvaluateConfig, FrontEndConfig
from unfused_ray.embedding.cache import EmbeddingCache
from unfused_ray.evaluation import cells
from unfused_ray.evaluation.cells import Cell
from unfused_ray.evaluation.protocol import FILE, Protocol, load_protocol
from unfused_ray.evaluation.systems import LogMelStatistics, System, TrainedModel, parse_model, random_rows
from unfused_ray.evaluation.table import Table
from unfused_ray.evaluation.tasks import SPLITS, Task, load_task
from unfused_ray.models.export import read_description
from unfused_ray.progress import Progress
from unfused_ray.training.run import home
from unfused_ray.training.tracking import Tracker, flat_params, log_results, metric_name, tracking_uri


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
    protocol = load_protocol(config.protocol)
    tasks = tuple(load_task(uri) for uri in config.tasks)
    models = [parse_model(text) for text in config.models]
    _refuse_repeated("tasks", [task.name for task in tasks])
    shapes: list[tuple[EncoderConfig, FrontEndConfig]] = []
    for model in models:
        for task in tasks:
            description = read_description(model.uri(task))
            shapes.append((EncoderConfig(**description["encoder"]), FrontEndConfig(**description["front_end"])))
    front_end = shapes[0][1] if shapes else FrontEndConfig(**tasks[0].index.manifests[0].config["front_end"])
    shapes = shapes or [(EncoderConfig(), front_end)]
    systems: tuple[System, ...] = (LogMelStatistics(front_end), *random_rows(shapes, config.random_seeds), *models)
    names = [system.name for system in systems]
    _refuse_repeated("models", names)
    if config.reference and config.reference not in names:
        raise ValueError(f"reference={config.reference} is no row; the rows are {', '.join(names)}")
    return Evaluation(config, protocol, tasks, systems)


def evaluate(evaluation: Evaluation) -> Table:
    """Fill the cells that are missing, and write table and pictures to the output folder.

    Raises:
        ValueError, OSError: a task or a model cannot be read.
    """
    storage.write_bytes(storage.join(evaluation.output, FILE), evaluation.protocol.text)
    pairs = [(task, system) for task in evaluation.tasks for system in evaluation.systems]
    found: dict[tuple[str, str], Cell] = {}
    with Progress("cells", len(pairs), "cells") as bar:
        for done, (task, system) in enumerate(pairs):
            bar.update(done, task=task.name, row=system.name)
            found[system.name, task.name] = cells.fill(
                evaluation.output, task, system, evaluation.protocol, evaluation.cache
            )
        bar.update(len(pairs))
    table = Table.of(evaluation.protocol, evaluation.tasks, evaluation.systems, found, evaluation.reference)
    table.write(evaluation.output)
    return table


def describe(evaluation: Evaluation) -> RichTable:
    """What :func:`evaluate` would do."""
    table = RichTable("", "", title=evaluation.output, title_justify="left", show_header=False)
    for task in evaluation.tasks:
        splits = ", ".join(f"{int((task.splits == split).sum()):,} {split}" for split in SPLITS)
        table.add_row(f"task {task.name}", f"{len(task.class_names)} classes; {splits}")
    for system in evaluation.systems:
        cost = system.cost(evaluation.tasks[0])
        table.add_row(system.name, f"{cost[0]:,} parameters" if cost else "no network")
    table.add_row("reference", evaluation.reference)
    table.add_row("protocol", evaluation.protocol.sha256)
    return table


def track(evaluation: Evaluation, table: Table) -> None:
    """Send the table to MLflow: an accuracy a cell, and the files."""
    config, output = evaluation.config, evaluation.output
    uri = tracking_uri(config.tracking)
    run_id = storage.sha256(output.encode())[:32]  # given again, it goes on in the same MLflow run
    params = flat_params(config.model_dump(mode="json")) | {"stage": "evaluate", "protocol": evaluation.protocol.sha256}
    tracker = Tracker(uri, config.tracking.experiment, config.name, run_id, params)
    for row in table.rows:
        for heading, interval in row.accuracy.items():
            bounds = {"accuracy": interval.value, "low": interval.low, "high": interval.high}
            tracker.log({f"{metric_name(row.name)}/{heading}/{name}": value for name, value in bounds.items()}, 0)
    tracker.close()
    files = [*storage.list_files(output), *(uri for task in table.tasks for uri in _pictures(output, task))]
    log_results(uri, config.tracking.experiment, run_id, files, {"evaluation": output})


def _pictures(output: str, task: str) -> list[str]:
    return [uri for uri in storage.list_files(storage.join(output, task)) if uri.endswith(".png")]


def _refuse_repeated(field: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1 or "/" in name:
            raise ValueError(f"{field}: the name {name!r} occurs twice or has a slash; name each one by NAME=PATH")
