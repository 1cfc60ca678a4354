"""Choice of the tasks that count: those where a network that must know more than a random one reads above it.

A task on which no published encoder and no supervised network is above random networks cannot show what a pre-training
is worth. That is decided on validation clips.
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
"""Stands for a gap of a sample that is not above 0: what is closed of it is as good as infinite."""


@dataclass(frozen=True)
class AnchorDifference:
    """An anchor against random networks on a task's validation clips."""

    task: str
    measure: Measure
    anchor: str
    difference: Interval

    @property
    def is_above(self) -> bool:
        """True if the interval lies above 0."""
        return self.difference.low > 0


def anchor_differences(
    config: BootstrapConfig,
    tasks: Sequence[Task],
    cells: Mapping[tuple[str, str], Cell],
    anchors: Sequence[str],
    random: str,
    supervised: Collection[str] = (),
) -> tuple[AnchorDifference, ...]:
    """Every anchor's difference from random networks, on validation clips, by task and measure.

    Args:
        config: of the bootstrap.
        tasks: of the table.
        cells: by row and task.
        anchors: rows that are there; without one there is no difference.
        random: row of random networks.
        supervised: anchors that have trained on labels. They say nothing of a task without validation clips, whose
            training clips are validated on in parts.
    """
    found: list[AnchorDifference] = []
    for task in tasks if anchors else ():
        asked = [name for name in anchors if name not in supervised or has_validation_clips(task)]
        for measure in MEASURES:
            rows = {name: cells[name, task.name] for name in (random, *asked)}
            drawn = {
                name: validation_draws(config, task.name, cell.validation[measure], cell.validation_groups)
                for name, cell in rows.items()
            }
            values = {name: cells[name, task.name].validation_accuracy(measure) for name in drawn}
            for anchor in asked:
                interval = bootstrap.difference(values[anchor], drawn[anchor], values[random], drawn[random])
                found.append(AnchorDifference(task.name, measure, anchor, interval))
    return tuple(found)


def has_validation_clips(task: Task) -> bool:
    """True if a task holds clips out for validation, in each of its rounds."""
    return all("valid" in round_.splits for round_ in task.rounds)


def counting_tasks(tasks: Sequence[str], differences: Sequence[AnchorDifference], measure: Measure) -> tuple[str, ...]:
    """Names of the tasks that count by a measure; all of them if there is no anchor to decide by."""
    above = {each.task for each in differences if each.measure == measure and each.is_above}
    return tuple(task for task in tasks if task in above or not differences)


def published_tasks(
    tasks: Sequence[str], differences: Sequence[AnchorDifference], published: Sequence[str]
) -> tuple[str, ...]:
    """Names of the tasks that count by the headline and published encoders alone; none if no anchor is one."""
    of_published = [each for each in differences if each.anchor in published]
    return counting_tasks(tasks, of_published, "headline") if of_published else ()


def gap_closed(
    row: Sequence[Deviations], anchors: Sequence[Sequence[Deviations]], random: Sequence[Deviations]
) -> Interval | None:
    """Share of the gap between random networks and each task's best anchor that a row closes; sums over the tasks.

    What a row has beyond the best anchor of a task is not counted: it does not make up for what is missing on another.
    The interval is of the same samples. In these, the best anchor of a task is that of all clips, and where the row
    reaches it on all clips, it does in the sample: the best of some anchors in each sample would be better than any of
    them, and the gap too wide. Both ends are unknown where the gap itself is not above 0 in 97.5 % of the samples.

    Args:
        row, anchors, random: by task, in the same order and of the same samples; one anchor or more.

    Returns:
        1 where the best anchors are reached on every task, 0 for random networks; None where no anchor is above these.
    """
    values_TR, random_TR, *anchors_ATR = map(_with_samples, (row, random, *anchors))
    best_T = np.stack(anchors_ATR)[:, :, 0].argmax(axis=0)
    best_TR = np.stack([anchors_ATR[anchor][task] for task, anchor in enumerate(best_T)])
    goals_TR = np.where(best_TR[:, :1] > random_TR[:, :1], best_TR, random_TR)
    reached_TR = np.where(values_TR[:, :1] >= goals_TR[:, :1], goals_TR, values_TR)
    gaps_R = (goals_TR - random_TR).sum(axis=0)
    if gaps_R[0] <= 0:
        return None
    closed_R = (reached_TR - random_TR).sum(axis=0) / np.maximum(gaps_R, _NO_GAP)
    if not np.quantile(gaps_R[1:], bootstrap.TAILS[0]) > 0:  # or it is not a number, of a task with one group
        return Interval(float(closed_R[0]), math.nan, math.nan)
    return bootstrap.interval(closed_R[0], closed_R[1:], least=-math.inf)


def _with_samples(system: Sequence[Deviations]) -> np.ndarray:
    """Accuracies (T, 1 + R) on all clips, then in the samples."""
    return np.stack([np.append(task.accuracy, task.accuracies) for task in system])


def validation_draws(config: BootstrapConfig, task: str, scores_SV: np.ndarray, groups_V: np.ndarray) -> np.ndarray:
    """Accuracies (R,) of bootstrap samples of a task's validation clips, from float64 scores and the clips' groups."""
    name = f"validation clips of {task}"
    return bootstrap.deviations(scores_SV, groups_V, config.replicates, config.seed, name).accuracies
