"""The rows of a plan on validation clips, beside random networks, to choose by before a test clip is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np

from unfused_ray import storage
from unfused_ray.comparison.counting import validation_draws
from unfused_ray.config import MEAN, QUICK_MEASURES, Measure
from unfused_ray.data.shards.format import Manifest
from unfused_ray.embedding.cache import EmbeddingCache
from unfused_ray.evaluation import bootstrap, cells
from unfused_ray.evaluation.bootstrap import Interval
from unfused_ray.evaluation.probes.clips import finite_clips
from unfused_ray.evaluation.probes.probe import validate
from unfused_ray.evaluation.protocol import BootstrapConfig, Protocol
from unfused_ray.evaluation.rows import headings, random_of
from unfused_ray.evaluation.systems import System
from unfused_ray.evaluation.table import IN_WORDS, markdown
from unfused_ray.evaluation.tasks import VALIDATION_SPLITS, Task, load_task
from unfused_ray.evaluation_job import job as evaluation_job
from unfused_ray.evaluation_job.plan import EvaluationPlan

FOLDER = "validation"
"""Folder of the scores, beside those of the table."""
MARKDOWN = "validation.md"
_FORMAT_VERSION = 2
"""2: a damaged clip leaves the other clips of few-shot unchanged."""


@dataclass(frozen=True)
class ValidationScores:
    """Scores of a system on the validation clips of a task."""

    scores: dict[Measure, np.ndarray]
    """(S, V) float64, 0 to 1, score of each network on each clip."""
    groups: np.ndarray
    """(V,) str, groups of the clips."""
    damaged: int
    """Clips of train and valid without finite features, left out of train and wrong in valid."""

    @classmethod
    def joined(cls, of_seeds: Sequence[Self]) -> Self:
        """Join several systems, which then count as the seeds of one."""
        scores: dict[Measure, np.ndarray] = {
            measure: np.concatenate([each.scores[measure] for each in of_seeds]) for measure in QUICK_MEASURES
        }
        return cls(scores, of_seeds[0].groups, max(each.damaged for each in of_seeds))

    def draws(self, config: BootstrapConfig, task: str, measure: Measure) -> tuple[float, np.ndarray]:
        """Return the accuracy, and the (R,) accuracies of its bootstrap samples."""
        scores_SV = self.scores[measure]
        return float(scores_SV.mean()), validation_draws(config, task, scores_SV, self.groups)


@dataclass(frozen=True)
class ValidationRow:
    """A row of the table; accuracies are shares of 1."""

    name: str
    num_networks: int
    accuracy: dict[Measure, dict[str, Interval]]
    """Accuracies by measure, then by task, including their mean."""
    above_random: Interval | None
    """Headline's mean over the tasks, minus that of random networks of its shape; None if there are no such
    networks."""


@dataclass(frozen=True)
class ValidationTable:
    """Systems of a plan on the validation clips of its tasks."""

    tasks: tuple[str, ...]
    rows: tuple[ValidationRow, ...]
    num_groups: dict[str, int]
    """Groups of validation clips, by task."""
    notes: tuple[str, ...]
    """Sentences on tasks that were left out, and on damaged clips."""
    protocol_sha256: str

    def to_markdown(self) -> str:
        """Return the headline by task and the means of all measures, in %, with an explanation."""
        columns = headings(self.tasks)
        last = columns[-1]
        rows = [
            [
                row.name,
                str(row.num_networks),
                *(row.accuracy["headline"][column].text() for column in columns),
                row.above_random.text("+") if row.above_random else "",
                *(row.accuracy[measure][last].text() for measure in QUICK_MEASURES[1:]),
            ]
            for row in self.rows
        ]
        named = [f"{measure}, {last}" for measure in QUICK_MEASURES[1:]]
        table = markdown(["system", "networks", *columns, "above random", *named], rows)
        groups = ", ".join(f"{task} {count:,}" for task, count in self.num_groups.items())
        sentences = [
            "Validation clips in %, with 95 % intervals: paired bootstrap over their groups, and over networks where "
            "a row has several",
            *(IN_WORDS[measure] for measure in QUICK_MEASURES),
            "The columns of tasks and their mean show the headline; above random is that mean minus the mean of "
            "random networks of the row's shape, in points",
            f"Groups of validation clips: {groups}",
            *self.notes,
            f"No score here is of a test clip. Protocol {self.protocol_sha256[:16]}",
        ]
        return f"{table}\n\n{'. '.join(sentences)}.\n"


def validation_tasks(uris: Sequence[str]) -> tuple[list[Task], list[str]]:
    """Read the training and validation clips of tasks.

    Returns:
        The tasks, and sentences on tasks without validation clips. Tasks with folds are among these: networks may have
        trained on all clips except their test clips.

    Raises:
        FileNotFoundError, ValueError: a task cannot be read.
    """
    without = [uri for uri in uris if not Manifest.load(uri).clips_by_split.get("valid")]
    tasks = [load_task(uri, VALIDATION_SPLITS) for uri in uris if uri not in without]
    return tasks, [f"Left out, having no split valid: {', '.join(map(storage.name, without))}"] if without else []


def validated(plan: EvaluationPlan, tasks: Sequence[Task], output: str) -> dict[tuple[str, str], ValidationScores]:
    """Score the systems of an evaluation on validation clips, in parallel; keep the scores that exist already.

    Args:
        plan: gives systems, protocol, cache and number of processes.
        tasks: tasks with train and valid clips.
        output: folder of the scores.

    Returns:
        Scores by row and task.

    Raises:
        ValueError: all train or all valid clips of a task are damaged; names row and task.
        OSError: the storage of a task does not answer, or a process was ended from outside.
    """
    read = partial(_read, output, plan.protocol)
    return evaluation_job.fill_all(plan, tasks, read, partial(_fill, output, plan.protocol, plan.cache))


def validation_table(
    protocol: Protocol,
    tasks: Sequence[Task],
    systems: Sequence[System],
    found: Mapping[tuple[str, str], ValidationScores],
    notes: Sequence[str] = (),
) -> ValidationTable:
    """Make the table from the scores of all systems on all tasks.

    Args:
        protocol: gives the settings of the bootstrap.
        tasks: the tasks that were read.
        systems: the rows.
        found: scores by row and task.
        notes: sentences for the text below the table.
    """
    config, names = protocol.config.bootstrap, [task.name for task in tasks]
    drawn: dict[tuple[str, Measure], dict[str, tuple[float, np.ndarray]]] = {}
    for system in systems:
        for measure in QUICK_MEASURES:
            of_tasks = {name: found[system.name, name].draws(config, name, measure) for name in names}
            drawn[system.name, measure] = _with_mean(of_tasks)
    random = random_of(tasks[0], systems)
    last = headings(names)[-1]
    rows = []
    for system in systems:
        accuracy: dict[Measure, dict[str, Interval]] = {
            measure: {heading: bootstrap.interval(*drawn[system.name, measure][heading]) for heading in headings(names)}
            for measure in QUICK_MEASURES
        }
        above = None
        if (other := random.get(system.name)) is not None:
            above = bootstrap.difference(*drawn[system.name, "headline"][last], *drawn[other, "headline"][last])
        num_networks = len(found[system.name, names[0]].scores["headline"])
        rows.append(ValidationRow(system.name, num_networks, accuracy, above))
    groups = {name: len(np.unique(bootstrap.distinct_groups(found[systems[0].name, name].groups))) for name in names}
    damaged = [
        f"{system.name} on {name} ({count:,})"
        for system in systems
        for name in names
        if (count := found[system.name, name].damaged)
    ]
    flaws = [f"Damaged clips, which count as wrong in validation: {', '.join(damaged)}"] if damaged else []
    return ValidationTable(tuple(names), tuple(rows), groups, (*notes, *flaws), protocol.sha256)


def _with_mean(of_tasks: dict[str, tuple[float, np.ndarray]]) -> dict[str, tuple[float, np.ndarray]]:
    values, draws = zip(*of_tasks.values(), strict=True)
    return of_tasks | {MEAN: (float(np.mean(values)), bootstrap.mean_over_tasks(draws))}


def _read(output: str, protocol: Protocol, task: Task, system: System) -> ValidationScores | None:
    """Read stored scores; None if they have to be computed."""
    written = cells.read_result(output, task, system, protocol, _FORMAT_VERSION)
    if written is None:
        return None
    scores: dict[Measure, np.ndarray] = {measure: np.array(written["scores"][measure]) for measure in QUICK_MEASURES}
    return ValidationScores(scores, np.array(written["groups"]), written["damaged"])


def _fill(output: str, protocol: Protocol, cache: EmbeddingCache, task: Task, system: System) -> ValidationScores:
    """Score a system on the validation clips of a task, and store the scores."""
    labelled = cells.labelled_clips(task)
    held_V, damaged = np.flatnonzero(task.splits == "valid"), 0
    scores: dict[Measure, np.ndarray] = {
        measure: np.zeros((system.num_networks, len(held_V))) for measure in QUICK_MEASURES
    }
    for number, vectors_ND in enumerate(system.vectors(task, protocol.config, cache)):
        network = validate(vectors_ND, labelled, protocol.config.probes, linear=False)
        for measure, scores_SV in scores.items():
            scores_SV[number, np.isin(held_V, network.clips)] = network.scores[measure]
        damaged = max(damaged, int((~finite_clips(vectors_ND, labelled)).sum()))
    made = ValidationScores(scores, task.groups[held_V], damaged)
    content: dict[str, Any] = {
        "scores": {measure: values.tolist() for measure, values in scores.items()},
        "groups": made.groups.tolist(),
        "damaged": damaged,
    }
    cells.write_result(output, task, system, protocol, _FORMAT_VERSION, content)
    return made
