"""Checks the protocol, tasks and systems of an evaluation, and refuses those that do not fit together."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from rich.table import Table

from unfused_ray import paths, storage
from unfused_ray.config import MEAN, EncoderConfig, EvaluateConfig, FrontEndConfig
from unfused_ray.data.shards.format import refuse_other_rate
from unfused_ray.embedding.cache import EmbeddingCache
from unfused_ray.evaluation import cells
from unfused_ray.evaluation.embedders import EmbedderModel, load_embedder
from unfused_ray.evaluation.probes.clips import validation_parts
from unfused_ray.evaluation.protocol import Protocol, load_protocol
from unfused_ray.evaluation.systems import (
    LogMelStatistics,
    System,
    TrainedModel,
    absolute_model,
    largest_cost,
    parse_model,
    random_rows,
)
from unfused_ray.evaluation.tasks import SPLITS, Task, load_task, refuse_shared
from unfused_ray.home import home
from unfused_ray.progress import described
from unfused_ray.runs.provenance import upstream
from unfused_ray.tracking import store

logger = logging.getLogger(__name__)

_LONGEST_NAME = 200
"""Longest name of a row in bytes: with their endings, and while they are written, its files have names of up to 255."""


@dataclass(frozen=True)
class EvaluationPlan:
    """An evaluation whose protocol, tasks and systems fit together."""

    config: EvaluateConfig
    protocol: Protocol
    tasks: tuple[Task, ...]
    systems: tuple[System, ...]

    @property
    def output(self) -> str:
        """Folder of the results."""
        return self.config.output or storage.join(home(), "evaluations", self.config.name)

    @property
    def reference(self) -> str:
        """Row with which the others are compared."""
        models = [system.name for system in self.systems if isinstance(system, TrainedModel | EmbedderModel)]
        return self.config.reference or (models or [self.systems[0].name])[0]

    @property
    def networks(self) -> tuple[str, ...]:
        """Paths or URIs of all trained networks, each once."""
        models = [system for system in self.systems if isinstance(system, TrainedModel)]
        return tuple(
            dict.fromkeys(model.uri(round_) for model in models for task in self.tasks for round_ in task.rounds)
        )

    @cached_property
    def cache(self) -> EmbeddingCache:
        """Cache of embeddings."""
        return EmbeddingCache(self.config.cache or storage.join(home(), "embeddings"))


def check(config: EvaluateConfig) -> EvaluationPlan:
    """Read protocol, tasks and descriptions of the models, and refuse what cannot work.

    Raises:
        ValueError, FileNotFoundError: names the field, its value and the rule.
    """
    config = paths.check(config)
    config = config.replace(models=tuple(map(absolute_model, config.models)))
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
    for task in tasks:  # without models, the baselines' front end comes from the first task
        refuse_other_rate(task.index.manifests, front_end.sample_rate)
    shapes = shapes or [(EncoderConfig(), front_end)]
    systems: tuple[System, ...] = (LogMelStatistics(front_end), *random_rows(shapes, config.random_seeds), *models)
    _refuse_row_names(systems)
    names = [system.name for system in systems]
    if config.reference and config.reference not in names:
        raise ValueError(f"reference={config.reference} is no row; the rows are {', '.join(names)}")
    for task in tasks:
        _refuse_unprobed(task, protocol)
    plan = EvaluationPlan(config, protocol, tasks, systems)
    _refuse_other_versions(plan.networks)
    return plan


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


def _refuse_other_versions(networks: Sequence[str]) -> None:
    """Refuse, before vectors are computed, networks in a run of another version, whose record tracking would read."""
    for uri in networks:
        try:
            upstream(uri)
        except ValueError as error:
            raise ValueError(f"models={uri}: {error}; or copy the network's own folder out of the run") from error


def _refuse_unprobed(task: Task, protocol: Protocol) -> None:
    """Refuse, before vectors are computed, clips that no probe can use; warn of clips that cannot validate.

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
                f"tasks={task.uri}: another column of the table is called {task.name!r}; a task has the name of its "
                "folder: rename the folder"
            )


def _refuse_row_names(systems: Sequence[System]) -> None:
    """Refuse names that are not those of files, before vectors are computed."""
    stems = [cells.file_stem(system.name) for system in systems]
    for system in systems:
        if not _is_text(system.name) or len(system.name.encode()) > _LONGEST_NAME:
            raise ValueError(
                f"models: {system.name!r} must be UTF-8 text of at most {_LONGEST_NAME} bytes, as files have its name: "
                "name the model by NAME=PATH"
            )
        if stems.count(cells.file_stem(system.name)) > 1 or "/" in system.name:
            raise ValueError(
                f"models: {system.name!r} must differ from the names of other rows, as files spell them, and have no "
                "slash: name each model by NAME=PATH"
            )


def _is_text(name: str) -> bool:
    """Return False for the name of a folder that is not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
