"""Makes the results table from its cells: paired bootstrap over groups and seeds, Holm's correction, training costs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from unfused_ray import storage
from unfused_ray.comparison.counting import (
    AnchorDifference,
    anchor_differences,
    counting_tasks,
    gap_closed,
    published_tasks,
)
from unfused_ray.comparison.table_plan import PlannedSystem, TablePlan
from unfused_ray.comparison.trainings import Training, Trainings
from unfused_ray.config import EvaluateConfig
from unfused_ray.evaluation import bootstrap, cells
from unfused_ray.evaluation.bootstrap import Deviations, Interval
from unfused_ray.evaluation.cells import Cell
from unfused_ray.evaluation.embedders import EmbedderModel
from unfused_ray.evaluation.filling import Filled
from unfused_ray.evaluation.protocol import BootstrapConfig
from unfused_ray.evaluation.rows import Row, deviations, headings, score
from unfused_ray.evaluation.systems import RandomNetwork, System, TrainedModel
from unfused_ray.evaluation.table import TABLE, EvaluationTable
from unfused_ray.evaluation.tasks import Task
from unfused_ray.evaluation_job import job as evaluation_job
from unfused_ray.evaluation_job import plan as evaluation_plan

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class TrainingCost:
    """Operations and epochs of a row's networks, for one full pipeline: that of the first seed."""

    sources_tflop: float
    """Operations on the sources for pre-training, including those of the runs that it builds on."""
    tasks_tflop: float
    """Operations on tasks, summed over all tasks."""
    epochs: tuple[int, ...]
    """Epochs of its own trainings: one number per task if each task has a network."""


@dataclass(frozen=True)
class ResultsRow:
    """A row of the table; accuracies are shares of 1."""

    row: Row
    cost: TrainingCost | None
    """None if nothing was trained."""
    seeds: tuple[int, ...]
    """Seeds of its trainings."""
    counting: Interval | None
    """Headline over the tasks that count; None if no task counts."""
    counting_difference: Interval | None
    """Difference of that headline from the reference row."""
    gap_closed: Interval | None
    """Share of the gap between random networks and the best anchor that the headline closes, over the tasks that count;
    None without anchors, or if the anchors are not above random networks on the test clips."""
    published_gap_closed: Interval | None
    """The same share for the published encoders among the anchors, over the tasks that count by these alone."""
    validation_accuracy: float
    """Headline over all tasks on validation clips; rows may be chosen by it."""


@dataclass(frozen=True)
class TestedDifference:
    """A pair of rows that the plan compares: the first minus the second."""

    first: str
    second: str
    difference: dict[str, Interval]
    """Difference of the headline's accuracy, on each task that counts and in their mean."""
    p_value: float
    """Two-sided p of the difference of the means."""
    p_holm: float
    """This p, corrected for all comparisons of the plan, including those that cannot be made yet."""
    single: tuple[str, ...]
    """Those of the two rows that are one network, trained or random: p then says nothing about another network."""


@dataclass(frozen=True)
class ResultsTable:
    """All rows, and the differences that the plan tests."""

    plan: TablePlan
    evaluation: evaluation_plan.EvaluationPlan
    reference: str
    """Row with which ``rows`` are compared."""
    rows: tuple[ResultsRow, ...]
    comparisons: tuple[TestedDifference, ...]
    """Comparisons of the plan whose rows are both in the table."""
    anchors: tuple[AnchorDifference, ...]
    """The differences that decide whether a task counts."""
    counting: tuple[str, ...]
    """Tasks that count by the headline; all of them if the plan has no anchors."""
    table: EvaluationTable
    """The evaluation's own table, with the same rows."""

    @property
    def headings(self) -> tuple[str, ...]:
        """Tasks that count, followed by their mean if there are several."""
        return headings(self.counting)


def model_name(system: PlannedSystem, seed: int) -> str:
    """Return the evaluation's name for the networks of one seed."""
    return f"{system.name} (seed {seed})"


def results(
    trainings: Trainings, finished: Mapping[str, Sequence[int]], config: EvaluateConfig, output: str, reference: str
) -> ResultsTable:
    """Read the cells, compute missing ones, and score the rows.

    Args:
        trainings: trainings of the plan.
        finished: by system, the seeds whose networks are all finished.
        config: configuration of the evaluation of all tasks.
        output: folder of the evaluations, one per task.
        reference: row with which others are compared; the first row until it is trained.
    """
    evaluation = evaluation_plan.check(config)
    protocol, tasks = evaluation.protocol, evaluation.tasks
    found = {}
    for task, network in itertools.product(tasks, evaluation.systems):
        folder = storage.join(output, task.name)
        cell = cells.read(folder, task, network, protocol)
        found[network.name, task.name] = cell or evaluation_job.fill(folder, protocol, evaluation.cache, task, network)
    networks = join_seeds(trainings, finished, evaluation.systems, tasks, found, Cell.joined)
    names = [network.name for network in networks]
    reference = reference if reference in names else names[0]
    of_rows = {(name, task.name): found[name, task.name] for name in names for task in tasks}
    table = EvaluationTable.of(protocol, tasks, networks, of_rows, reference, _near_copies(tasks, output))
    plan, draws = trainings.plan, protocol.config.bootstrap
    anchors = [name for name in plan.anchors if name in names] if plan.random in names else []
    differences = anchor_differences(draws, tasks, of_rows, anchors, plan.random, plan.supervised)
    counting = counting_tasks([task.name for task in tasks], differences, "headline")
    published = [name for name in anchors if name in [peer.name for peer in plan.peers]]
    by_published = published_tasks(plan.tasks, differences, published)
    counted = [task for task in tasks if task.name in counting]
    of_counted = {row.name: row for row in score(draws, counted, networks, of_rows, reference)} if counted else {}
    drawn = {
        name: {task.name: deviations(draws, task, of_rows[name, task.name], "headline") for task in counted}
        for name in (names if anchors else ())
    }
    heading = headings([task.name for task in counted])[-1:]  # the only task, if there is no mean
    by_name = {system.name: system for system in plan.systems}
    rows = []
    for row in table.rows:
        seeds = tuple(finished.get(row.name, ()))
        validation = [of_rows[row.name, task.name].validation_accuracy("headline") for task in tasks]
        mine = of_counted.get(row.name)
        rows.append(
            ResultsRow(
                row=row,
                cost=cost(trainings.of(by_name[row.name], seeds[0])) if seeds else None,
                seeds=seeds,
                counting=mine.accuracy["headline"][heading[0]] if mine else None,
                counting_difference=mine.difference["headline"][heading[0]] if mine and mine.difference else None,
                gap_closed=_gap_closed(row.name, drawn, counting, anchors, plan.random),
                published_gap_closed=_gap_closed(row.name, drawn, by_published, published, plan.random),
                validation_accuracy=float(np.mean(validation)),
            )
        )
    compared = comparisons(draws, counted, networks, of_rows, plan.compare) if counted else ()
    return ResultsTable(plan, evaluation, reference, tuple(rows), compared, differences, counting, table)


def _near_copies(tasks: Sequence[Task], output: str) -> list[str]:
    """Return the sentences of the tasks' evaluations on near-copies."""
    folders = [storage.join(output, task.name) for task in tasks]
    tables = [EvaluationTable.load(folder) for folder in folders if storage.exists(storage.join(folder, TABLE))]
    return list(dict.fromkeys(sentence for table in tables for sentence in table.near_copies))


def _gap_closed(
    name: str,
    drawn: Mapping[str, Mapping[str, Deviations]],
    tasks: Sequence[str],
    anchors: Sequence[str],
    random: str,
) -> Interval | None:
    if not tasks or not anchors:
        return None
    of_row, of_random, *of_anchors = ([drawn[row][task] for task in tasks] for row in (name, random, *anchors))
    return gap_closed(of_row, of_anchors, of_random)


def join_seeds(
    trainings: Trainings,
    finished: Mapping[str, Sequence[int]],
    networks: Sequence[System],
    tasks: Sequence[Task],
    found: dict[tuple[str, str], Filled],
    joined: Callable[[Sequence[Filled]], Filled],
) -> list[System]:
    """Return the rows of the table: those without seeds, and one per system with the cells of all seeds joined.

    Args:
        trainings: trainings of the plan.
        finished: by system, the seeds whose networks are all finished.
        networks: the networks that were read, each seed's separately.
        tasks: the tasks that were read.
        found: cells by row and task; joined cells are added to it.
        joined: joins cells.
    """
    rows: list[System] = [network for network in networks if not isinstance(network, TrainedModel)]
    for system in trainings.plan.systems:
        if seeds := finished.get(system.name, ()):
            rows.append(TrainedModel(system.name, trainings.path(system, seeds[0])))
            for task in tasks:
                alike = [found[model_name(system, seed), task.name] for seed in seeds]
                found[system.name, task.name] = joined(alike)
    return rows


def cost(trainings: Sequence[Training]) -> TrainingCost:
    """Return the cost of a row's trainings and of all that they build on, counting each run once."""
    runs: dict[str, Training] = {}
    found = list(trainings)
    while found:
        training = found.pop()
        runs[training.folder] = training
        found += training.needs
    operations = {run.folder: run.tflop + run.labelling_tflop for run in runs.values()}
    on_sources = [operations[run.folder] for run in runs.values() if run.system.on == "sources"]
    on_tasks = [operations[run.folder] for run in runs.values() if run.system.on != "sources"]
    return TrainingCost(sum(on_sources), sum(on_tasks), tuple(training.config.epochs for training in trainings))


def comparisons(
    config: BootstrapConfig,
    tasks: Sequence[Task],
    networks: Sequence[System],
    found: Mapping[tuple[str, str], Cell],
    pairs: Sequence[tuple[str, str]],
) -> tuple[TestedDifference, ...]:
    """Compare the headlines of pairs of rows in the table; p of the means is corrected for the number of all pairs.

    Args:
        config: settings of the bootstrap.
        tasks: the tasks that count.
        networks: rows of the table.
        found: cells by row and task.
        pairs: pairs of rows, the first minus the second.
    """
    by_name = {network.name: network for network in networks}
    made = [pair for pair in pairs if set(pair) <= by_name.keys()]
    drawn = {
        name: [deviations(config, task, found[name, task.name], "headline") for task in tasks]
        for name in dict.fromkeys(name for pair in made for name in pair)
    }
    p_values = {
        pair: bootstrap.p_value(drawn[pair[0]], drawn[pair[1]]) if pair in made else float("nan") for pair in pairs
    }
    corrected = holm(p_values)
    compared = []
    for pair in made:
        first, second = pair
        of_first, _ = score(config, tasks, [by_name[first], by_name[second]], found, second)
        single = tuple(
            name
            for name in pair
            if isinstance(by_name[name], TrainedModel | EmbedderModel | RandomNetwork) and drawn[name][0].num_seeds == 1
        )
        difference = of_first.difference["headline"]
        compared.append(TestedDifference(first, second, difference, p_values[pair], corrected[pair], single))
    return tuple(compared)


def holm(p_values: Mapping[Name, float]) -> dict[Name, float]:
    """Correct p-values for their number (Holm, A simple sequentially rejective multiple test procedure, 1979).

    The k-th smallest of m is multiplied by m - k + 1, and raised if needed to the corrected value of the next smaller
    one. An unknown p counts as 1 and stays NaN.
    """
    corrected: dict[Name, float] = {}
    largest = 0.0
    ordered = sorted(p_values, key=lambda name: 1.0 if np.isnan(p_values[name]) else p_values[name])
    for place, name in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - place) * p_values[name]))
        corrected[name] = float("nan") if np.isnan(p_values[name]) else largest
    return corrected
