"""Chooses the tasks that count: those on which a network that must know more than a random one scores above it.

A task on which no published encoder and no supervised network is above random networks cannot show the worth of a
pre-training. This is decided on validation clips.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unfused_ray.config import Measure
from unfused_ray.evaluation import bootstrap
from unfused_ray.evaluation.bootstrap import Deviations, Interval
from unfused_ray.evaluation.cells import MEASURES, Cell
from unfused_ray.evaluation.protocol import BootstrapConfig
from unfused_ray.evaluation.tasks import Task

_NO_GAP = 1e-9
"""Smallest gap. It replaces that of a sample whose gap is smaller, the closed share of which is then very large."""


@dataclass(frozen=True)
class AnchorDifference:
    """Difference of an anchor from random networks on a task's validation clips."""

    task: str
    measure: Measure
    anchor: str
    difference: Interval

    @property
    def is_above(self) -> bool:
        """True if the whole interval is above 0."""
        return self.difference.low > 0


def anchor_differences(
    config: BootstrapConfig,
    tasks: Sequence[Task],
    cells: Mapping[tuple[str, str], Cell],
    anchors: Sequence[str],
    random: str,
    supervised: Collection[str] = (),
) -> tuple[AnchorDifference, ...]:
    """Return every anchor's difference from random networks, on validation clips, by task and measure.

    Args:
        config: settings of the bootstrap.
        tasks: tasks of the table.
        cells: by row and task.
        anchors: anchor rows that the table has; without any there are no differences.
        random: name of the row of random networks.
        supervised: anchors trained on labels. They are left out on tasks without validation clips, where validation
            uses parts of the training clips.
    """
    found: list[AnchorDifference] = []
    for task in tasks if anchors else ():
        tested = [name for name in anchors if name not in supervised or has_validation_clips(task)]
        for measure in MEASURES:
            rows = {name: cells[name, task.name] for name in (random, *tested)}
            drawn = {
                name: validation_draws(config, task.name, cell.validation[measure], cell.validation_groups)
                for name, cell in rows.items()
            }
            values = {name: cells[name, task.name].validation_accuracy(measure) for name in drawn}
            for anchor in tested:
                interval = bootstrap.difference(values[anchor], drawn[anchor], values[random], drawn[random])
                found.append(AnchorDifference(task.name, measure, anchor, interval))
    return tuple(found)


def has_validation_clips(task: Task) -> bool:
    """Return True if a task holds clips out for validation, in each of its rounds."""
    return all("valid" in round_.splits for round_ in task.rounds)


def counting_tasks(tasks: Sequence[str], differences: Sequence[AnchorDifference], measure: Measure) -> tuple[str, ...]:
    """Return the tasks that count by a measure; all tasks if there is no anchor to decide by."""
    above = {each.task for each in differences if each.measure == measure and each.is_above}
    return tuple(task for task in tasks if task in above or not differences)


def published_tasks(
    tasks: Sequence[str], differences: Sequence[AnchorDifference], published: Sequence[str]
) -> tuple[str, ...]:
    """Return the tasks that count by the headline and published encoders alone; none if no anchor is published."""
    of_published = [each for each in differences if each.anchor in published]
    return counting_tasks(tasks, of_published, "headline") if of_published else ()


def gap_closed(
    row: Sequence[Deviations], anchors: Sequence[Sequence[Deviations]], random: Sequence[Deviations]
) -> Interval | None:
    """Return the share of the gap from random networks to the best anchors that a row closes, summed over tasks.

    Accuracy above the best anchor of a task is not counted: it does not make up for a shortfall on another task. The
    interval comes from the same samples. In every sample, the best anchor of a task is the one that is best on all
    clips, and if the row reaches it on all clips, it counts as reaching it in the sample. Choosing the best anchor anew
    in each sample would give a value above every anchor, and too wide a gap. Both ends are unknown unless the gap
    itself is above 0 in 97.5 % of the samples.

    Args:
        row, anchors, random: deviations by task, in the same order and from the same samples; at least one anchor.

    Returns:
        1 if the row reaches the best anchor on every task, 0 for random networks; None if no anchor is above random
            networks.
    """
    values_TR, random_TR, *anchors_ATR = map(_with_samples, (row, random, *anchors))
    best_T = np.stack(anchors_ATR)[:, :, 0].argmax(axis=0)
    best_TR = np.stack([anchors_ATR[anchor][task] for task, anchor in enumerate(best_T)])
    goals_TR = np.where(best_TR[:, :1] > random_TR[:, :1], best_TR, random_TR)
    reached_TR = np.where(values_TR[:, :1] >= goals_TR[:, :1], goals_TR, values_TR)
    gaps_R = (goals_TR - random_TR).sum(axis=0)
    if gaps_R[0] < _NO_GAP:
        return None
    closed_R = (reached_TR - random_TR).sum(axis=0) / np.maximum(gaps_R, _NO_GAP)
    if not np.quantile(gaps_R[1:], bootstrap.TAILS[0]) > 0:  # also true for NaN, from a task with one group
        return Interval(float(closed_R[0]), math.nan, math.nan)
    return bootstrap.interval(closed_R[0], closed_R[1:], least=-math.inf)


def _with_samples(system: Sequence[Deviations]) -> np.ndarray:
    """Return accuracies (T, 1 + R): first on all clips, then in the samples."""
    return np.stack([np.append(task.accuracy, task.accuracies) for task in system])


def validation_draws(config: BootstrapConfig, task: str, scores_SV: np.ndarray, groups_V: np.ndarray) -> np.ndarray:
    """Draw accuracies (R,) of bootstrap samples of a task's validation clips, from float64 scores and clips' groups."""
    name = f"validation clips of {task}"
    return bootstrap.deviations(scores_SV, groups_V, config.replicates, config.seed, name).accuracies
