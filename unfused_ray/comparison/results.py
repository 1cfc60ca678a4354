"""The table out of its cells: seeds nested in the paired bootstrap, Holm over the comparisons, and what a row cost."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from unfused_ray import storage
from unfused_ray.comparison.plan import Plan, System
from unfused_ray.comparison.trainings import Training, Trainings
from unfused_ray.config import EvaluateConfig
from unfused_ray.evaluation import bootstrap, cells, evaluate
from unfused_ray.evaluation.bootstrap import Interval
from unfused_ray.evaluation.cells import Cell
from unfused_ray.evaluation.evaluate import Evaluation
from unfused_ray.evaluation.protocol import BootstrapConfig
from unfused_ray.evaluation.rows import MEAN, Row, groups_of_test, score
from unfused_ray.evaluation.systems import System as Network
from unfused_ray.evaluation.systems import TrainedModel
from unfused_ray.evaluation.table import Table
from unfused_ray.evaluation.tasks import Task

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Cost:
    """What the networks of a row took to train: one full pipeline, of the first seed."""

    sources_tflop: float
    """On the sources for pre-training, those of the runs that it builds on included."""
    tasks_tflop: float
    """On tasks, the sum over all of them."""
    epochs: tuple[int, ...]
    """Of its own trainings, one a task where each task has a network."""


@dataclass(frozen=True)
class Line:
    """A row of the table, in shares of 1."""

    row: Row
    cost: Cost | None
    """None where nothing was trained."""
    seeds: tuple[int, ...]
    """Of its trainings."""
    natural: Interval | None
    """Mean over the tasks that are not synthetic; None where all are alike."""
    natural_difference: Interval | None
    """From the reference row."""
    validation_accuracy: float
    """Mean over tasks on the clips that chose readouts and C: what rows may be chosen by."""


@dataclass(frozen=True)
class Comparison:
    """A pair of rows that the plan compares: the first minus the second."""

    first: str
    second: str
    difference: dict[str, Interval]
    """By task, and their mean."""
    p_value: float
    """Of the mean's difference, two-sided."""
    p_holm: float
    """The same, corrected for all comparisons of the plan, those that cannot be made yet too."""
    single: tuple[str, ...]
    """Which of the two are one training: p then says nothing of another one."""


@dataclass(frozen=True)
class Results:
    """The whole table."""

    plan: Plan
    evaluation: Evaluation
    reference: str
    """Row that ``lines`` are compared with."""
    lines: tuple[Line, ...]
    comparisons: tuple[Comparison, ...]
    """Those of the plan whose rows are both there."""
    table: Table
    """The evaluation's own, of the same rows."""


def model_name(system: System, seed: int) -> str:
    """What an evaluation calls the networks of one seed."""
    return f"{system.name} (seed {seed})"


def evaluation_config(
    trainings: Trainings,
    finished: Mapping[str, Sequence[int]],
    tasks: Sequence[str],
    output: str,
    protocol: str,
    random_seeds: int,
    processes: int = 0,
) -> EvaluateConfig:
    """The evaluation on some of the tasks of everything that is trained.

    Args:
        trainings: of the plan.
        finished: by system, the seeds whose networks all are.
        tasks: names of tasks.
        output: folder of the evaluation.
        protocol: file; empty is the package's own.
        random_seeds: random networks of each shape.
        processes: that fill cells; 0 is one a core.
    """
    plan = trainings.plan
    models = [
        f"{model_name(system, seed)}={trainings.path(system, seed)}"
        for system in plan.systems
        for seed in finished.get(system.name, ())
    ]
    return EvaluateConfig(
        name=f"{plan.name}-{'-'.join(tasks)}",
        models=tuple(models),
        tasks=tuple(trainings.uri(task) for task in tasks),
        output=output,
        random_seeds=random_seeds,
        protocol=protocol,
        processes=processes,
    )


def results(
    trainings: Trainings, finished: Mapping[str, Sequence[int]], config: EvaluateConfig, output: str, reference: str
) -> Results:
    """Read the cells, each of which is computed where it is missing, and score the rows.

    Args:
        trainings: of the plan.
        finished: by system, the seeds whose networks all are.
        config: of the evaluation of all tasks.
        output: folder of the evaluations, one a task.
        reference: row that others are compared with; as long as it is not trained, the first is.
    """
    evaluation = evaluate.check(config)
    found = {}
    for of, network in itertools.product(evaluation.tasks, evaluation.systems):
        folder, protocol = storage.join(output, of.name), evaluation.protocol
        cell = cells.read(folder, of, network, protocol)
        found[network.name, of.name] = cell or cells.fill(folder, of, network, protocol, evaluation.cache)
    plan = trainings.plan
    names = [task.name for task in evaluation.tasks]
    networks: list[Network] = [system for system in evaluation.systems if not isinstance(system, TrainedModel)]
    for system in plan.systems:
        if seeds := finished.get(system.name, ()):
            networks.append(TrainedModel(system.name, trainings.path(system, seeds[0])))
            for task in names:
                found[system.name, task] = joined([found[model_name(system, seed), task] for seed in seeds])
    known = [network.name for network in networks]
    reference = reference if reference in known else known[0]
    config_of_draws = evaluation.protocol.config.bootstrap
    of_rows = {(network.name, task): found[network.name, task] for network in networks for task in names}
    table = Table.of(evaluation.protocol, evaluation.tasks, networks, of_rows, reference)
    natural_tasks = [task for task in evaluation.tasks if task.name not in plan.synthetic]
    natural: Sequence[Row] = ()
    if 0 < len(natural_tasks) < len(names):
        natural = score(config_of_draws, natural_tasks, networks, found, reference)
    by_name = {system.name: system for system in plan.systems}
    lines = []
    for place, row in enumerate(table.rows):
        seeds = tuple(finished.get(row.name, ()))
        other = natural[place] if natural else None
        # Of one task alone there is no mean, but that task.
        heading = MEAN if len(natural_tasks) > 1 else natural_tasks[0].name if natural_tasks else ""
        lines.append(
            Line(
                row=row,
                cost=cost(trainings.of(by_name[row.name], seeds[0])) if seeds else None,
                seeds=seeds,
                natural=other.accuracy[heading] if other else None,
                natural_difference=other.difference.get(heading) if other else None,
                validation_accuracy=float(np.mean([found[row.name, name].validation_accuracy for name in names])),
            )
        )
    compared = comparisons(config_of_draws, evaluation.tasks, networks, found, plan.compare)
    return Results(plan, evaluation, reference, tuple(lines), compared, table)


def joined(seeds: Sequence[Cell]) -> Cell:
    """One cell of several seeds' cells of a task."""
    return replace(
        seeds[0],
        correct=np.concatenate([cell.correct for cell in seeds]),
        results=[result for cell in seeds for result in cell.results],
        damaged=max(cell.damaged for cell in seeds),
    )


def cost(trainings: Sequence[Training]) -> Cost:
    """What a row's trainings and all that they build on cost, each run once."""
    runs: dict[str, Training] = {}
    found = list(trainings)
    while found:
        training = found.pop()
        runs[training.folder] = training
        found += training.needs
    operations = {run.folder: run.tflop + run.labelling_tflop for run in runs.values()}
    on_sources = [operations[run.folder] for run in runs.values() if run.system.on == "sources"]
    on_tasks = [operations[run.folder] for run in runs.values() if run.system.on != "sources"]
    return Cost(sum(on_sources), sum(on_tasks), tuple(training.config.epochs for training in trainings))


def comparisons(
    config: BootstrapConfig,
    tasks: Sequence[Task],
    networks: Sequence[Network],
    found: Mapping[tuple[str, str], Cell],
    pairs: Sequence[tuple[str, str]],
) -> tuple[Comparison, ...]:
    """Compare pairs of rows that are there, and correct p of the differences in the mean for the number of all pairs.

    Args:
        config: of the bootstrap.
        tasks: of the table.
        networks: rows of the table.
        found: cells by row and task.
        pairs: of rows, the first minus the second.
    """
    by_name = {network.name: network for network in networks}
    made = [pair for pair in pairs if set(pair) <= by_name.keys()]
    drawn = {
        name: [
            bootstrap.deviations(
                found[name, task.name].correct,
                groups_of_test(task),
                config.replicates,
                config.seed,
                task.name,
                found[name, task.name].weights,
            )
            for task in tasks
        ]
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
            name for name in pair if isinstance(by_name[name], TrainedModel) and drawn[name][0].num_seeds == 1
        )
        compared.append(Comparison(first, second, of_first.difference, p_values[pair], corrected[pair], single))
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
