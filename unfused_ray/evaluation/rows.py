"""The rows of a table: accuracies and differences with intervals, choices of validation, and size of the network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from unfused_ray.config import MEAN, EncoderConfig, Measure
from unfused_ray.evaluation import bootstrap
from unfused_ray.evaluation.bootstrap import Deviations, Interval
from unfused_ray.evaluation.cells import MEASURES, Cell
from unfused_ray.evaluation.protocol import BootstrapConfig
from unfused_ray.evaluation.systems import RandomNetwork, System, TrainedModel, largest_cost
from unfused_ray.evaluation.tasks import Task


@dataclass(frozen=True)
class Row:
    """One system of the table; accuracies are shares of 1."""

    name: str
    parameters: int | None
    """Size of its largest network, if tasks have networks of their own; None if it has no network, or states no
    size."""
    multiply_adds: float | None
    """Multiply-adds for a second of audio."""
    num_seeds: int
    accuracy: dict[Measure, dict[str, Interval]]
    """Accuracies by measure, then by task, including their mean."""
    difference: dict[Measure, dict[str, Interval]]
    """Differences from the reference row, drawn with the same test clips; empty for the reference row."""
    strengths: dict[str, list[float]]
    """C that validation chose for the linear probe, by task, one per seed and fold."""
    accuracy_by_part: dict[str, dict[str, float]] = field(default_factory=dict)
    """Accuracy of the linear probe on the parts of the test clips that are also reported separately, by task and
    part."""


@dataclass(frozen=True)
class Margin:
    """The difference of a trained row from random networks of its shape, over the test clips of all tasks together."""

    row: str
    random: str
    """Name of the row of random networks."""
    difference: dict[Measure, Interval]
    """Differences in shares of 1, in which each clip has the same weight; intervals draw groups within each task."""

    @property
    def text(self) -> str:
        """The headline's difference as a sentence."""
        return f"{self.row} {self.difference['headline'].text('+')} points from {self.random}"


def headings(tasks: Sequence[str]) -> tuple[str, ...]:
    """Return the tasks, followed by the mean if there are several."""
    return (*tasks, *([MEAN] if len(tasks) > 1 else []))


def num_test_groups(task: Task) -> int:
    """Count the distinct groups of test clips; each clip without a group counts as one."""
    return len(np.unique(bootstrap.distinct_groups(task.groups[task.tested])))


def num_shared_groups(tasks: Sequence[Task]) -> int:
    """Count the group names of test clips that occur in several tasks, where they are drawn equally often."""
    counts = Counter(group for task in tasks for group in set(task.groups[task.tested].tolist()) if group)
    return sum(count > 1 for count in counts.values())


def deviations(config: BootstrapConfig, task: Task, cell: Cell, measure: Measure) -> Deviations:
    """Draw the bootstrap samples of a cell."""
    scores_ST, groups_T = cell.scores[measure], task.groups[task.tested]
    return bootstrap.deviations(scores_ST, groups_T, config.replicates, config.seed, task.name, cell.weights)


def score(
    config: BootstrapConfig,
    tasks: Sequence[Task],
    systems: Sequence[System],
    cells: Mapping[tuple[str, str], Cell],
    reference: str,
) -> tuple[Row, ...]:
    """Make one row per system, from all cells by (row, task)."""
    scored = {measure: _score(config, tasks, systems, cells, reference, measure) for measure in MEASURES}
    rows = []
    for system in systems:
        own = {task.name: cells[system.name, task.name] for task in tasks}
        parameters, multiply_adds = largest_cost(system, tasks) or (None, None)
        is_reference = system.name == reference
        rows.append(
            Row(
                name=system.name,
                parameters=parameters,
                multiply_adds=multiply_adds,
                num_seeds=max(cell.num_networks for cell in own.values()),
                accuracy={measure: of_row[system.name][0] for measure, of_row in scored.items()},
                difference={} if is_reference else {m: of_row[system.name][1] for m, of_row in scored.items()},
                strengths={name: [r["linear"]["strength"] for r in cell.results] for name, cell in own.items()},
                accuracy_by_part={task.name: _by_part(own[task.name], task) for task in tasks if task.parts.any()},
            )
        )
    return tuple(rows)


def margins(
    config: BootstrapConfig, tasks: Sequence[Task], systems: Sequence[System], cells: Mapping[tuple[str, str], Cell]
) -> tuple[Margin, ...]:
    """Compare each trained row with the random networks of its shape and front end, if the table has them.

    The tasks are strata: every sample weights a task by its number of clips, and each task's deviations are widened by
    its own number of groups.
    """
    clips = [task.tested.sum() for task in tasks]

    def drawn(row: str, task: Task, measure: Measure) -> Deviations:
        """Draw samples of the mean over the row's networks, in which all clips have equal weight."""
        scores_1T = cells[row, task.name].scores[measure].mean(axis=0)[None]
        return bootstrap.deviations(scores_1T, task.groups[task.tested], config.replicates, config.seed, task.name)

    def together(row: str, measure: Measure) -> tuple[float, np.ndarray]:
        of_tasks = [drawn(row, task, measure) for task in tasks]
        value = float(np.average([of.accuracy for of in of_tasks], weights=clips))
        return value, bootstrap.mean_over_tasks([of.accuracies for of in of_tasks], clips)

    def difference(first: str, second: str, measure: Measure) -> Interval:
        return bootstrap.difference(*together(first, measure), *together(second, measure))

    return tuple(
        Margin(row, random, {measure: difference(row, random, measure) for measure in MEASURES})
        for row, random in random_of(tasks[0].rounds[0], systems).items()
    )


def random_of(task: Task, systems: Sequence[System]) -> dict[str, str]:
    """Return the random row with the shape and front end of each trained row, by trained row; dropout is ignored."""
    usual = EncoderConfig().dropout
    random = {(each.shape, each.front_end): each.name for each in systems if isinstance(each, RandomNetwork)}
    found = {}
    for system in systems:
        if isinstance(system, TrainedModel):
            shape, front_end = system.shape(task)
            if (name := random.get((shape.replace(dropout=usual), front_end))) is not None:
                found[system.name] = name
    return found


def _score(
    config: BootstrapConfig,
    tasks: Sequence[Task],
    systems: Sequence[System],
    cells: Mapping[tuple[str, str], Cell],
    reference: str,
    measure: Measure,
) -> dict[str, tuple[dict[str, Interval], dict[str, Interval]]]:
    """Return accuracies, and differences from the reference, by row and heading."""
    values: dict[str, dict[str, float]] = {}
    draws: dict[str, dict[str, np.ndarray]] = {}
    for system in systems:
        own = {task.name: cells[system.name, task.name] for task in tasks}
        of_tasks = {name: cell.accuracy(measure) for name, cell in own.items()}
        drawn = {task.name: deviations(config, task, own[task.name], measure).accuracies for task in tasks}
        values[system.name] = of_tasks | {MEAN: sum(of_tasks.values()) / len(of_tasks)}
        draws[system.name] = drawn | {MEAN: bootstrap.mean_over_tasks(list(drawn.values()))}
    shown = headings([task.name for task in tasks])
    other, other_drawn = values[reference], draws[reference]
    return {
        name: (
            {h: bootstrap.interval(mine[h], draws[name][h]) for h in shown},
            {h: bootstrap.difference(mine[h], draws[name][h], other[h], other_drawn[h]) for h in shown},
        )
        for name, mine in values.items()
    }


def _by_part(cell: Cell, task: Task) -> dict[str, float]:
    parts_T = task.parts[task.tested]
    return {
        part: float(cell.scores["linear"][:, parts_T == part].mean()) for part in np.unique(parts_T).tolist() if part
    }
