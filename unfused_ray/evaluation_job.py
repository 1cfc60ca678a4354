"""The job that evaluates: fills the cells of a table side by side, draws them, and tracks the table in MLflow.

A cell is kept: an evaluation that was interrupted, or that is given more rows or tasks, computes the missing cells
alone.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from rich.table import Table

from unfused_ray import paths, storage
from unfused_ray.config import MEAN, EncoderConfig, EvaluateConfig, FrontEndConfig, flatten
from unfused_ray.data.parts.default_executor import default_executor
from unfused_ray.data.parts.executor import IN_PROCESS
from unfused_ray.data.shards.format import refuse_other_rate
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.data.shards.statistics import compute_statistics
from unfused_ray.embedding.cache import EmbeddingCache
from unfused_ray.evaluation import cells
from unfused_ray.evaluation.cells import Cell
from unfused_ray.evaluation.embedders import EmbedderModel, load_embedder
from unfused_ray.evaluation.filling import Filled, embed, fill_cells, parts_of
from unfused_ray.evaluation.probes.clips import validation_parts
from unfused_ray.evaluation.protocol import FILE, Protocol, load_protocol
from unfused_ray.evaluation.rows import random_of
from unfused_ray.evaluation.systems import (
    LogMelStatistics,
    RandomNetwork,
    System,
    TrainedModel,
    encoders_of,
    largest_cost,
    parse_model,
    random_rows,
)
from unfused_ray.evaluation.table import FORMAT_VERSION, MARKDOWN, RECORD, TABLE, EvaluationTable
from unfused_ray.evaluation.tasks import SPLITS, Task, load_task, refuse_shared, role
from unfused_ray.figures import cell, nearest
from unfused_ray.figures.accuracies import draw_evaluation
from unfused_ray.figures.canvas import save
from unfused_ray.figures.map import MAX_POINTS
from unfused_ray.figures.watched import draw_watched, of_models, panels
from unfused_ray.home import home
from unfused_ray.progress import Progress, described
from unfused_ray.retrieval.leakage import near_copies
from unfused_ray.runs.environment import environment
from unfused_ray.runs.provenance import upstream
from unfused_ray.tracking import store
from unfused_ray.tracking.mlflow import TAGS, TrackedRun, kept_id, log_results, metric_name, tags
from unfused_ray.tracking.sender import Tracker

logger = logging.getLogger(__name__)

PICTURE = "table.png"
WATCHED = "watched.png"
"""Drawing of what was watched while the models trained, where anything was."""
_SHOWN = 2
"""Models whose nearest clips are shown."""
_SECONDS_HERE = 3600.0
"""Audio whose statistics are computed in this process; of more, on Ray."""


@dataclass(frozen=True)
class EvaluationPlan:
    """An evaluation whose protocol, tasks and systems fit together."""

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
        models = [system.name for system in self.systems if isinstance(system, TrainedModel | EmbedderModel)]
        return self.config.reference or (models or [self.systems[0].name])[0]

    @cached_property
    def cache(self) -> EmbeddingCache:
        """Folder in which embeddings are kept."""
        return EmbeddingCache(self.config.cache or storage.join(home(), "embeddings"))


def check(config: EvaluateConfig) -> EvaluationPlan:
    """Read protocol, tasks and descriptions of the models, and refuse what cannot work.

    Raises:
        ValueError, FileNotFoundError: names the field, its value and the rule.
    """
    config = paths.check(config)
    store.tracking_uri(config.tracking)
    protocol = load_protocol(config.protocol)
    tasks = tuple(load_task(uri) for uri in config.tasks)
    _refuse_repeated_tasks(tasks)
    for task in tasks if config.shared_clips == "refuse" else ():
        refuse_shared(task)
    models = [parse_model(text) for text in config.models]
    shapes: list[tuple[EncoderConfig, FrontEndConfig]] = []
    for model, round_ in ((model, round_) for model in models for task in tasks for round_ in task.rounds):
        if isinstance(model, EmbedderModel):
            load_embedder(model.spec)
        else:
            shape, front_end = model.shape(round_)
            refuse_other_rate(round_.index.manifests, front_end.sample_rate)
            shapes.append((shape, front_end))
    front_end = shapes[0][1] if shapes else tasks[0].index.manifests[0].front_end
    for task in tasks:  # of baselines, where no model has said so
        refuse_other_rate(task.index.manifests, front_end.sample_rate)
    shapes = shapes or [(EncoderConfig(), front_end)]
    systems: tuple[System, ...] = (LogMelStatistics(front_end), *random_rows(shapes, config.random_seeds), *models)
    _refuse_repeated_rows(systems)
    names = [system.name for system in systems]
    if config.reference and config.reference not in names:
        raise ValueError(f"reference={config.reference} is no row; the rows are {', '.join(names)}")
    for task in tasks:
        _refuse_unprobed(task, protocol)
    return EvaluationPlan(config, protocol, tasks, systems)


def describe(plan: EvaluationPlan) -> Table:
    """Summarise an evaluation without starting it."""
    table = described(plan.output)
    for task in plan.tasks:
        splits = ", ".join(f"{int((task.splits == split).sum()):,} {split}" for split in task.folds or SPLITS)
        table.add_row(f"task {task.name}", f"{len(task.class_names)} classes; {splits}")
        for remark in task.remarks:
            table.add_row("", remark)
    for system in plan.systems:
        cost = largest_cost(system, plan.tasks)
        unknown = "parameters unknown" if isinstance(system, EmbedderModel) else "no network"
        table.add_row(system.name, f"{cost[0]:,} parameters" if cost else unknown)
    table.add_row("reference", plan.reference)
    table.add_row("protocol", plan.protocol.sha256)
    table.add_row("tracker", store.describe(plan.config.tracking))
    return table


def run(plan: EvaluationPlan) -> EvaluationTable:
    """Fill the cells that are missing, side by side on this machine's cores, and write and draw the table.

    ``RECORD`` holds the configuration and the environment of the newest start, the weights that were read, and
    checksums of the tasks.

    Raises:
        ValueError, OSError: a task or a model cannot be read, or a process was ended from outside.
    """
    output = plan.output
    storage.write_bytes(storage.join(output, FILE), plan.protocol.text)
    read = partial(cells.read, output, protocol=plan.protocol)
    found = fill_all(plan, plan.tasks, read, partial(fill, output, plan.protocol, plan.cache))
    scored = plan.protocol, plan.tasks, plan.systems, found, plan.reference
    table = EvaluationTable.of(*scored, _near_copies(plan))
    table.save(output)
    asked = _asked(plan)
    for task in plan.tasks if asked else ():
        nearest.write(output, task, {name: found[name, task.name] for name in asked})
    _draw_watched(plan)
    save(draw_evaluation("Test clips that each system is right about", table), storage.join(output, PICTURE))
    config = plan.config.model_dump(mode="json")
    record = {
        "config": config,
        "environment": environment(),
        "asked": asked,
        "encoders": encoders_of(plan.systems, plan.tasks),
        "checksums": {task.name: task.index.checksums for task in plan.tasks},  # cells name clips by number
    }
    storage.write_json(storage.join(output, RECORD), record, FORMAT_VERSION)
    return table


def fill_all(
    plan: EvaluationPlan,
    tasks: Sequence[Task],
    read: Callable[[Task, System], Filled | None],
    work: Callable[[Task, System], Filled],
) -> dict[tuple[str, str], Filled]:
    """Read what is kept of each system on each task, and fill what is missing, side by side on this machine's cores.

    Args:
        plan: whose systems, cache and number of processes count.
        tasks: the plan's, or parts of them.
        read: reads what is kept; None is missing.
        work: computes and keeps it; it travels to other processes.

    Returns:
        What is known, by row and task.

    Raises:
        ValueError, OSError: a task or a model cannot be read, or a process was ended from outside.
    """
    pairs = [(task, system) for task in tasks for system in plan.systems]
    kept = {(system.name, task.name): read(task, system) for task, system in pairs}
    found = {pair: filled for pair, filled in kept.items() if filled is not None}
    missing = [(task, system) for task, system in pairs if (system.name, task.name) not in found]
    _compute_statistics(missing)
    if plan.cache.device == "cuda":
        _embed_on_gpus(plan, missing)
    with Progress("cells", len(pairs), "cells", done=len(found)) as bar:
        bar.update(len(found))
        for filled in fill_cells(missing, work, plan.config.processes):
            found |= filled
            row, task_name = next(reversed(filled))
            bar.update(len(found), task=task_name, row=row)
    return found


def _near_copies(plan: EvaluationPlan) -> list[str]:
    """Sentences on test clips with a near-copy in what the trained rows heard, task by task.

    A row with a network for each fold heard the other folds: each network is asked about its own.
    """
    models = [system for system in plan.systems if isinstance(system, TrainedModel)]
    sentences = []
    for task in plan.tasks:
        (manifest,) = task.index.manifests
        by_fold = [model for model in models if len({model.uri(round_) for round_ in task.rounds}) > 1]
        all_tested = [split for split in manifest.clips_by_split if role(split) in ("test", "fold")]
        asked = [(task, all_tested, [model for model in models if model not in by_fold])]
        asked += [(round_, [fold], by_fold) for fold, round_ in zip(task.folds, task.rounds, strict=False)]
        for each, splits, rows in asked:
            uris = {model.name: model.uri(each.rounds[0]) for model in rows}
            sentences += near_copies(each.name, ClipIndex([manifest], splits), uris) if uris else []
    if others := [system.name for system in plan.systems if isinstance(system, EmbedderModel)]:
        names = ", ".join(others)
        sentences.append(f"What {names} heard in training is not known, so near-copies in it are not counted")
    return sentences


def _asked(plan: EvaluationPlan) -> list[str]:
    """Systems whose nearest clips are shown: a random row, then the first models.

    The random row has the shape of the last of these, or is the first one if none has.
    """
    random = [system.name for system in plan.systems if isinstance(system, RandomNetwork)][:1]
    models = [system.name for system in plan.systems if isinstance(system, TrainedModel | EmbedderModel)][:_SHOWN]
    of_its_shape = random_of(plan.tasks[0].rounds[0], plan.systems)
    return [*([of_its_shape[models[-1]]] if models and models[-1] in of_its_shape else random), *models]


def _draw_watched(plan: EvaluationPlan) -> None:
    """Draw the watched accuracies of the runs that models are from."""
    models = [system for system in plan.systems if isinstance(system, TrainedModel)]
    picture = storage.join(plan.output, WATCHED)
    storage.delete(picture)  # of other models
    if found := of_models(models, [task.name for task in plan.tasks]):
        save(draw_watched("Validation clips while the networks trained, beside random ones", panels(found)), picture)


def fill(output: str, protocol: Protocol, cache: EmbeddingCache, task: Task, system: System) -> Cell:
    """Compute a cell, draw it, and keep it in the output folder, with its pictures beside it."""
    computed, heard = cells.compute(task, system, protocol, cache, MAX_POINTS)
    cell.write(output, task, system.name, computed, heard)
    cells.write(output, task, system, protocol, computed)  # last: a cell that is there has its pictures
    return computed


def track(plan: EvaluationPlan, table: EvaluationTable, parent: str = "") -> None:
    """Send the table to MLflow: accuracies of all cells, the files, and those of its rows in one folder per task.

    An unknown end of an interval is no metric. Given again, an evaluation resumes its MLflow run, which keeps the
    parameters that it was begun with.

    Args:
        plan: of the evaluation.
        table: its result.
        parent: id of the run that it is shown under; '' is none.
    """
    output = plan.output
    store.announce(plan.config.tracking)
    tracked = _tracked_run(plan, parent)
    tracker = Tracker(tracked)
    for row in table.rows:
        for measure, heading, interval in (
            (m, h, i) for m, of_tasks in row.accuracy.items() for h, i in of_tasks.items()
        ):
            bounds = {"accuracy": interval.value, "low": interval.low, "high": interval.high}
            known = {name: value for name, value in bounds.items() if not math.isnan(value)}
            of_cell = f"{row.name}/{heading}/{measure}"
            tracker.log({metric_name(f"{of_cell}/{name}"): value for name, value in known.items()}, 0)
    if lost := tracker.close():
        logger.warning("%d figures did not reach the tracking server; %s has them all", lost, output)
    written = [storage.join(output, name) for name in (FILE, MARKDOWN, TABLE, PICTURE, WATCHED)]
    if not log_results(tracked, [file for file in written if storage.exists(file)], {}):
        return
    names = {name for s in plan.systems for name in (cells.file_name(s.name), *cell.files(s.name))}
    names.add(nearest.PICTURE)
    for task in table.tasks:  # the folder may hold rows of another evaluation
        files = [file for file in storage.list_files(storage.join(output, task)) if storage.name(file) in names]
        log_results(tracked, files, {}, folder=task)


def _compute_statistics(missing: Sequence[tuple[Task, System]]) -> None:
    """Compute the statistics that sources lack once, and not in each process; on Ray, if they are long."""
    wanted = {
        (round_.uri, round_.training_splits, front_end)
        for task, system in missing
        for round_ in task.rounds
        if (front_end := system.front_end_of(round_)) is not None
    }
    for uri, splits, front_end in wanted:
        (training,) = ClipIndex.load([uri], splits).manifests
        if training.statistics(front_end) is None:
            executor = IN_PROCESS if training.seconds <= _SECONDS_HERE else default_executor()
            compute_statistics(training, front_end, executor)


def _embed_on_gpus(plan: EvaluationPlan, missing: Sequence[tuple[Task, System]]) -> None:
    """Make the vectors of all missing cells, with one process for each GPU of the machine or cluster.

    A machine with one GPU needs no Ray: it is done in this process.

    Raises:
        ValueError: the tasks or the cache are on this machine, and the cluster has others.
    """
    import torch  # an evaluation of finished cells need not wait for it

    parts = parts_of([(task, system) for task, system in missing if not isinstance(system, LogMelStatistics)])
    executor = default_executor(gpus_per_task=1.0) if torch.cuda.device_count() > 1 else IN_PROCESS
    work = partial(embed, plan.protocol.config, plan.cache)
    with executor.open(), Progress("embedding", len(parts), "rows") as bar:
        executor.refuse_impossible({"cache": plan.cache.uri} | {f"tasks: {task.name}": task.uri for task in plan.tasks})
        with executor.run(work, parts) as done:
            for count, _ in enumerate(done, start=1):
                bar.update(count)


def _tracked_run(plan: EvaluationPlan, parent: str) -> TrackedRun:
    config, models = plan.config, [system for system in plan.systems if isinstance(system, TrainedModel)]
    rounds = [round_ for task in plan.tasks for round_ in task.rounds]
    networks = dict.fromkeys(model.uri(round_) for model in models for round_ in rounds)
    data = [task.index.manifests[0] for task in plan.tasks]
    return TrackedRun(
        uri=store.tracking_uri(config.tracking),
        experiment=store.experiment_name(config.tracking),
        name=config.name,
        id=kept_id(plan.output),
        config=config.model_dump(mode="json"),
        params=flatten(config.model_dump(mode="json")),
        tags=tags("evaluate", plan.output, data, [upstream(uri) for uri in networks])
        | {f"{TAGS}protocol": plan.protocol.sha256},
        parent=parent,
    )


def _refuse_unprobed(task: Task, protocol: Protocol) -> None:
    """Refuse clips that no probe can be fitted and validated on, before vectors are made; say which cannot validate.

    Raises:
        ValueError: names the task.
    """
    for round_ in task.rounds:
        labelled = cells.labelled_clips(round_)
        try:
            parts = validation_parts(labelled, np.ones(len(round_.splits), bool), protocol.config.probes.folds)
        except ValueError as error:
            raise ValueError(f"tasks={task.uri}: {error}") from error
        for part in parts:
            if len(classes := np.unique(round_.class_ids[part.fitting])) < 2:
                raise ValueError(
                    f"tasks={task.uri}: all {len(part.fitting):,} training clips of a probe are of one class, "
                    f"{round_.class_names[classes[0]]}: there is nothing to tell apart"
                )
        held = sum(len(part.held) for part in parts)
        if "valid" not in round_.splits and (left := int((round_.splits == "train").sum()) - held):
            logger.warning(
                "%s: %d clips cannot validate, as no other group of train has their class: give valid clips",
                round_.name,
                left,
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
    stems = [cells.file_stem(system.name) for system in systems]
    for system in systems:
        if stems.count(cells.file_stem(system.name)) > 1 or "/" in system.name:
            raise ValueError(
                f"models: {system.name!r} cannot be the name of one row alone (it is another's too, or has a slash): "
                "name each model by NAME=PATH"
            )
