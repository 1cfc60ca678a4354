"""Fills the cells of a table in parallel, writes the table and draws it.

Cells are stored, so an evaluation that was interrupted, or that gets more rows or tasks, computes only the missing
cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from unfused_ray import storage
from unfused_ray.data.parts.default_executor import default_executor
from unfused_ray.data.parts.executor import IN_PROCESS
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.data.shards.statistics import compute_statistics
from unfused_ray.embedding.cache import EmbeddingCache
from unfused_ray.evaluation import cells
from unfused_ray.evaluation.cells import Cell
from unfused_ray.evaluation.embedders import EmbedderModel
from unfused_ray.evaluation.filling import Filled, embed, fill_cells, parts_of
from unfused_ray.evaluation.protocol import FILE, Protocol
from unfused_ray.evaluation.rows import random_of
from unfused_ray.evaluation.systems import (
    LogMelStatistics,
    RandomNetwork,
    System,
    TrainedModel,
    encoders_of,
)
from unfused_ray.evaluation.table import FORMAT_VERSION, MARKDOWN, RECORD, TABLE, EvaluationTable
from unfused_ray.evaluation.tasks import Task, role
from unfused_ray.evaluation_job.plan import EvaluationPlan
from unfused_ray.figures import cell, nearest
from unfused_ray.figures.accuracies import draw_evaluation
from unfused_ray.figures.canvas import save
from unfused_ray.figures.map import MAX_POINTS
from unfused_ray.figures.watched import draw_watched, of_models, panels
from unfused_ray.progress import Progress
from unfused_ray.retrieval.leakage import by_finding, near_copies
from unfused_ray.runs.environment import environment

PICTURE = "table.png"
WATCHED = "watched.png"
"""Picture of the watched scores during training, if the models have any."""
_SHOWN = 2
"""Number of models whose nearest clips are shown."""
_SECONDS_HERE = 3600.0
"""Longest audio whose statistics are computed in this process; statistics of more audio are computed on Ray."""


def run(plan: EvaluationPlan) -> EvaluationTable:
    """Fill the missing cells in parallel on this machine's cores; write and draw the table.

    ``RECORD`` holds the configuration and environment of the latest start, the hashes of the weights, and checksums of
    the tasks.

    Raises:
        ValueError, OSError: a task or a model cannot be read, or a process was ended from outside.
    """
    output = plan.output
    protocol = storage.join(output, FILE)
    if storage.exists(protocol) and storage.read_bytes(protocol) != plan.protocol.text:
        _delete_table(output)
    storage.write_bytes(protocol, plan.protocol.text)
    found = fill_all(plan, plan.tasks, partial(_read, plan), partial(fill, output, plan.protocol, plan.cache))
    scored = plan.protocol, plan.tasks, plan.systems, found, plan.reference
    table = EvaluationTable.of(*scored, _near_copies(plan))
    table.save(output)
    shown = _shown_with_nearest(plan)
    for task in plan.tasks:
        nearest.write(output, task, {name: found[name, task.name] for name in shown})
    _draw_watched(plan)
    save(draw_evaluation("Test clips that each system classifies correctly", table), storage.join(output, PICTURE))
    config = plan.config.model_dump(mode="json")
    record = {
        "config": config,
        "environment": environment(),
        "asked": shown,
        "encoders": encoders_of(plan.systems, plan.tasks),
        "checksums": {task.name: task.index.checksums for task in plan.tasks},  # cells name clips by number
    }
    storage.write_json(storage.join(output, RECORD), record, FORMAT_VERSION)
    return table


def _read(plan: EvaluationPlan, task: Task, system: System) -> Cell | None:
    """Read a stored cell; None if it is missing. If it must be computed again, the table that shows it is deleted."""
    found = cells.read(plan.output, task, system, plan.protocol)
    if found is None and cells.is_stored(plan.output, task, system):
        _delete_table(plan.output)
    return found


def _delete_table(output: str) -> None:
    """Delete a table before its cells or its protocol are replaced: the job may be interrupted before the next one."""
    for name in (TABLE, MARKDOWN, RECORD, PICTURE, WATCHED):
        storage.delete(storage.join(output, name))


def fill_all(
    plan: EvaluationPlan,
    tasks: Sequence[Task],
    read: Callable[[Task, System], Filled | None],
    work: Callable[[Task, System], Filled],
) -> dict[tuple[str, str], Filled]:
    """Read the stored cell of each system and task, and fill missing ones in parallel on this machine's cores.

    Args:
        plan: gives systems, cache and number of processes.
        tasks: the tasks of the plan, or parts of them.
        read: reads a stored cell; None if it is missing.
        work: computes and stores a cell; it is sent to other processes.

    Returns:
        All cells, by row and task.

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


def _compute_statistics(missing: Sequence[tuple[Task, System]]) -> None:
    """Compute the statistics that sources lack once, not in each process; on Ray, if the audio is long."""
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
    """Compute the vectors of all missing cells, with one process per GPU of the machine or cluster.

    With at most one GPU this process computes them, without Ray.

    Raises:
        ValueError: the tasks or the cache are local to this machine, and the cluster has other machines.
    """
    import torch  # an evaluation of finished cells need not wait for the import

    parts = parts_of([(task, system) for task, system in missing if not isinstance(system, LogMelStatistics)])
    executor = default_executor(gpus_per_task=1.0) if torch.cuda.device_count() > 1 else IN_PROCESS
    work = partial(embed, plan.protocol.config, plan.cache)
    with executor.open(), Progress("embedding", len(parts), "rows") as bar:
        executor.refuse_impossible({"cache": plan.cache.uri} | {f"tasks: {task.name}": task.uri for task in plan.tasks})
        with executor.run(work, parts) as done:
            for count, _ in enumerate(done, start=1):
                bar.update(count)


def fill(output: str, protocol: Protocol, cache: EmbeddingCache, task: Task, system: System) -> Cell:
    """Compute a cell, draw it, and store it in the output folder, with its pictures beside it."""
    computed, heard = cells.compute(task, system, protocol, cache, MAX_POINTS)
    cell.write(output, task, system.name, computed, heard)
    cells.write(output, task, system, protocol, computed)  # last, so that a stored cell has its pictures
    return computed


def _near_copies(plan: EvaluationPlan) -> list[str]:
    """Return sentences on test clips with a near-copy in the training data of the trained rows, one for each finding.

    A row with a network for each fold was trained on the other folds, so each network is checked against its own fold.
    """
    models = [system for system in plan.systems if isinstance(system, TrainedModel)]
    sentences = []
    for task in plan.tasks:
        (manifest,) = task.index.manifests
        by_fold = [model for model in models if len({model.uri(round_) for round_ in task.rounds}) > 1]
        all_tested = [split for split in manifest.clips_by_split if role(split) in ("test", "fold")]
        checks = [(task, all_tested, [model for model in models if model not in by_fold])]
        checks += [(round_, [fold], by_fold) for fold, round_ in zip(task.folds, task.rounds, strict=False)]
        for each, splits, rows in checks:
            uris = {model.name: model.uri(each.rounds[0]) for model in rows}
            sentences += near_copies(each.name, ClipIndex([manifest], splits), uris) if uris else []
    if others := [system.name for system in plan.systems if isinstance(system, EmbedderModel)]:
        names = ", ".join(others)
        sentences.append(f"The training clips of {names} are not known, so near-copies among them are not counted")
    return by_finding(sentences, [task.name for task in plan.tasks])


def _shown_with_nearest(plan: EvaluationPlan) -> list[str]:
    """Return the systems whose nearest clips are shown: a random row, then the first models.

    The random row is the one with the shape of the last of these models, or else the first random row.
    """
    random = [system.name for system in plan.systems if isinstance(system, RandomNetwork)][:1]
    models = [system.name for system in plan.systems if isinstance(system, TrainedModel | EmbedderModel)][:_SHOWN]
    of_its_shape = random_of(plan.tasks[0].rounds[0], plan.systems)
    return [*([of_its_shape[models[-1]]] if models and models[-1] in of_its_shape else random), *models]


def _draw_watched(plan: EvaluationPlan) -> None:
    """Draw the watched accuracies of the runs that the models come from."""
    models = [system for system in plan.systems if isinstance(system, TrainedModel)]
    picture = storage.join(plan.output, WATCHED)
    storage.delete(picture)  # it may show other models
    if found := of_models(models, [task.name for task in plan.tasks]):
        save(
            draw_watched("Validation clips while the networks trained, beside random networks", panels(found)), picture
        )
