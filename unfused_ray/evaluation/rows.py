"""The rows of a table: accuracies and differences with their intervals, choices of validation, size of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from unfused_ray.evaluation import bootstrap
from unfused_ray.evaluation.bootstrap import Deviations, Interval
from unfused_ray.evaluation.cells import Cell
from unfused_ray.evaluation.protocol import BootstrapConfig
from unfused_ray.evaluation.systems import System, largest_cost
from unfused_ray.evaluation.tasks import Task

MEAN = "mean"
"""Heading of the mean over the tasks."""


@dataclass(frozen=True)
class Choice:
    """Readout and C that validation chose for one network on one task."""

    readout: str
    strength: float
    """The probe's C."""


@dataclass(frozen=True)
class Row:
    """One system, in shares of 1."""

    name: str
    parameters: int | None
    """Size of its largest network, where every task has one of its own; None if it has none, or does not say."""
    multiply_adds: float | None
    """Work for a second of audio."""
    num_seeds: int
    accuracy: dict[str, Interval]
    """By task, and their mean."""
    difference: dict[str, Interval]
    """From the reference row, drawn with the same test clips; empty for that row."""
    chosen: dict[str, list[Choice]]
    """By task, one a seed and fold."""
    accuracy_by_part: dict[str, dict[str, float]] = field(default_factory=dict)
    """By task and part, of tasks whose test clips have parts that are reported too."""


def headings(tasks: Sequence[str]) -> tuple[str, ...]:
    """Tasks, and the mean where there are several."""
    return (*tasks, *([MEAN] if len(tasks) > 1 else []))


def num_test_groups(task: Task) -> int:
    """Distinct groups of test clips; each clip without a group is one."""
    return len(np.unique(bootstrap.distinct_groups(task.groups[task.tested])))


def deviations(config: BootstrapConfig, task: Task, cell: Cell) -> Deviations:
    """Bootstrap samples of a cell."""
    groups_T = task.groups[task.tested]
    return bootstrap.deviations(cell.correct, groups_T, config.replicates, config.seed, task.name, cell.weights)


def score(
    config: BootstrapConfig,
    tasks: Sequence[Task],
    systems: Sequence[System],
    cells: Mapping[tuple[str, str], Cell],
    reference: str,
) -> tuple[Row, ...]:
    """One row per system, from all cells by (row, task)."""
    names = [task.name for task in tasks]
    values = {system.name: _values(names, system, cells) for system in systems}
    draws = {system.name: _draws(config, tasks, system, cells) for system in systems}
    rows = []
    for system in systems:
        mine, drawn = values[system.name], draws[system.name]
        other, other_drawn = values[reference], draws[reference]
        compared = headings(names) if system.name != reference else ()
        own = {task.name: cells[system.name, task.name] for task in tasks}
        parameters, multiply_adds = largest_cost(system, tasks) or (None, None)
        rows.append(
            Row(
                name=system.name,
                parameters=parameters,
                multiply_adds=multiply_adds,
                num_seeds=max(len(cell.correct) for cell in own.values()),
                accuracy={h: bootstrap.interval(mine[h], drawn[h]) for h in headings(names)},
                difference={h: bootstrap.difference(mine[h], drawn[h], other[h], other_drawn[h]) for h in compared},
                chosen={
                    name: [Choice(seed["readout"], seed["strength"]) for seed in cell.results]
                    for name, cell in own.items()
                },
                accuracy_by_part={task.name: _by_part(own[task.name], task) for task in tasks if task.parts.any()},
            )
        )
    return tuple(rows)


def _values(tasks: Sequence[str], system: System, cells: Mapping[tuple[str, str], Cell]) -> dict[str, float]:
    values = {task: cells[system.name, task].accuracy for task in tasks}
    return values | {MEAN: sum(values.values()) / len(tasks)}


def _by_part(cell: Cell, task: Task) -> dict[str, float]:
    parts_T = task.parts[task.tested]
    return {part: float(cell.correct[:, parts_T == part].mean()) for part in np.unique(parts_T).tolist()}


def _draws(
    config: BootstrapConfig, tasks: Sequence[Task], system: System, cells: Mapping[tuple[str, str], Cell]
) -> dict[str, np.ndarray]:
    """Accuracies of bootstrap samples, by heading."""
    draws = {task.name: deviations(config, task, cells[system.name, task.name]).accuracies for task in tasks}
    return draws | {MEAN: bootstrap.mean_over_tasks(list(draws.values()))}
