"""The results table from its cells: paired bootstrap over groups and seeds, Holm over comparisons, training costs."""

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
    """Operations and epochs of a row's networks: one full pipeline, of the first seed."""

    sources_tflop: float
    """Operations on the sources for pre-training, those of the runs that it builds on included."""
    tasks_tflop: float
    """Operations on tasks, the sum over all of them."""
    epochs: tuple[int, ...]
    """Epochs of its own trainings, one a task where each task has a network."""


@dataclass(frozen=True)
class ResultsRow:
    """A row of the table, in shares of 1."""

    row: Row
    cost: TrainingCost | None
    """None where nothing was trained."""
    seeds: tuple[int, ...]
    """Seeds of its trainings."""
    counting: Interval | None
    """Headline over the tasks that count; None where none does."""
    counting_difference: Interval | None
    """Its difference from the reference row."""
    gap_closed: Interval | None
    """Share of the gap between random networks and the best anchor that the headline closes, over the tasks that count;
    None without anchors, and where these are not above random networks on the test clips."""
    published_gap_closed: Interval | None
    """The same for the published encoders among the anchors, over the tasks that count by these alone."""
    validation_accuracy: float
    """Headline over all tasks on validation clips; rows may be chosen by it."""


@dataclass(frozen=True)
class TestedDifference:
    """A pair of rows that the plan compares: the first minus the second."""

    first: str
    second: str
    difference: dict[str, Interval]
    """Difference of the headline's accuracy, by task that counts, and in their mean."""
    p_value: float
    """Two-sided p of the mean's difference."""
    p_holm: float
    """The same, corrected for all comparisons of the plan, those that cannot be made yet too."""
    single: tuple[str, ...]
    """Those of the two that are one network, trained or random: p then says nothing of another one."""


@dataclass(frozen=True)
class ResultsTable:
    """All rows, and the differences that the plan tests."""

    plan: TablePlan
    evaluation: evaluation_plan.EvaluationPlan
    reference: str
    """Row that ``rows`` are compared with."""
    rows: tuple[ResultsRow, ...]
    comparisons: tuple[TestedDifference, ...]
    """Those of the plan whose rows are both there."""
    anchors: tuple[AnchorDifference, ...]
    """Why a task counts, or does not."""
    counting: tuple[str, ...]
    """Tasks that count by the headline; all of them if the plan has no anchors."""
    table: EvaluationTable
    """The evaluation's own, of the same rows."""

    @property
    def headings(self) -> tuple[str, ...]:
        """Tasks that count, and their mean where there are several."""
        return headings(self.counting)


def model_name(system: PlannedSystem, seed: int) -> str:
    """The evaluation's name for the networks of one seed."""
    return f"{system.name} (seed {seed})"


def results(
    trainings: Trainings, finished: Mapping[str, Sequence[int]], config: EvaluateConfig, output: str, reference: str
) -> ResultsTable:
    """Read the cells, each of which is computed where it is missing, and score the rows.

    Args:
        trainings: of the plan.
        finished: by system, the seeds whose networks all are.
        config: of the evaluation of all tasks.
        output: folder of the evaluations, one per task.
        reference: row that others are compared with; as long as it is not trained, the first is.
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
    heading = headings([task.name for task in counted])[-1:]  # without a mean, the only task
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
    """Sentences of the tasks' evaluations about near-copies."""
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
    """Rows of the table: those without seeds, and one per system, whose cells of all seeds are joined.

    Args:
        trainings: of the plan.
        finished: by system, the seeds whose networks all are.
        networks: that were read, those of each seed apart.
        tasks: that were read.
        found: cells by row and task; the joined ones are added.
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
    """The cost of a row's trainings and of all that they build on, each run once."""
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
    """Compare headlines of pairs of rows that are there; p of their means is corrected for the number of all pairs.

    Args:
        config: of the bootstrap.
        tasks: that count.
        networks: rows of the table.
        found: cells by row and task.
        pairs: of rows, the first minus the second.
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
    """P-values corrected for their number (Holm, A simple sequentially rejective multiple test procedure, 1979).

    The k-th smallest of m is multiplied by m - k + 1; none is less than a smaller one's. One that is not known is
    counted as 1 and stays NaN.
    """
    corrected: dict[Name, float] = {}
    largest = 0.0
    ordered = sorted(p_values, key=lambda name: 1.0 if np.isnan(p_values[name]) else p_values[name])
    for place, name in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - place) * p_values[name]))
        corrected[name] = float("nan") if np.isnan(p_values[name]) else largest
    return corrected
