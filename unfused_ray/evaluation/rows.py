"""The rows of a table: accuracies and differences with their intervals, what validation chose, what a network costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from unfused_ray.evaluation import bootstrap
from unfused_ray.evaluation.bootstrap import Interval
from unfused_ray.evaluation.cells import Cell
from unfused_ray.evaluation.protocol import BootstrapConfig
from unfused_ray.evaluation.systems import System, largest_cost
from unfused_ray.evaluation.tasks import Task

MEAN = "mean"
"""Heading of the mean over the tasks."""


@dataclass(frozen=True)
class Choice:
    """What validation chose for one network on one task."""

    readout: str
    strength: float
    """The probe's C."""


@dataclass(frozen=True)
class Row:
    """One system, in shares of 1."""

    name: str
    parameters: int | None
    """Of its largest network, where every task has one of its own; None without a network."""
    multiply_adds: float | None
    """For a second of audio."""
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


def groups_of_test(task: Task) -> np.ndarray:
    """Groups of the tested clips, in the order of their clip_ids: (T,) str."""
    return task.groups[task.tested]


def num_test_groups(task: Task) -> int:
    """Distinct groups of test clips, each clip without a group one."""
    return len(np.unique(bootstrap.distinct_groups(groups_of_test(task))))


def score(
    config: BootstrapConfig,
    tasks: Sequence[Task],
    systems: Sequence[System],
    cells: Mapping[tuple[str, str], Cell],
    reference: str,
) -> tuple[Row, ...]:
    """A row a system, from all cells by (row, task)."""
    names = [task.name for task in tasks]
    values = {system.name: _values(names, system, cells) for system in systems}
    draws = {system.name: _draws(config, tasks, system, cells) for system in systems}
    rows = []
    for system in systems:
        mine, drawn = values[system.name], draws[system.name]
        other, other_drawn = values[reference], draws[reference]
        compared = headings(names) if system.name != reference else ()
        cost = largest_cost(system, tasks)
        rows.append(
            Row(
                name=system.name,
                parameters=cost[0] if cost else None,
                multiply_adds=cost[1] if cost else None,
                num_seeds=max(len(cells[system.name, name].correct) for name in names),
                accuracy={h: bootstrap.interval(mine[h], drawn[h]) for h in headings(names)},
                difference={h: bootstrap.difference(mine[h], drawn[h], other[h], other_drawn[h]) for h in compared},
                chosen={
                    name: [Choice(seed["readout"], seed["strength"]) for seed in cells[system.name, name].results]
                    for name in names
                },
                accuracy_by_part={
                    task.name: _by_part(cells[system.name, task.name], task) for task in tasks if task.parts.any()
                },
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
    """Replicates of a row by heading."""
    draws = {}
    for task in tasks:
        cell = cells[system.name, task.name]
        draws[task.name] = bootstrap.replicates(
            cell.correct, groups_of_test(task), config.replicates, config.seed, task.name, cell.weights
        )
    return draws | {MEAN: bootstrap.mean_over_tasks(list(draws.values()))}
