"""Scores a student on validation clips; the test split is never read here."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass

import numpy as np

from unfused_ray.config import Measure
from unfused_ray.embedding.cache import EmbeddingCache
from unfused_ray.evaluation import bootstrap, cells
from unfused_ray.evaluation.probes.probe import validate
from unfused_ray.evaluation.protocol import BootstrapConfig, ProtocolConfig
from unfused_ray.evaluation.systems import TrainedModel
from unfused_ray.evaluation.tasks import Task, errors_name


@dataclass(frozen=True)
class Score:
    """Score of a student on the held-out clips of one task."""

    task: str
    accuracy: float
    scores: list[float]
    """Score of each held-out clip, in the order of their clip_ids."""
    groups: list[str]
    """Group of each of these clips; "" is a group of its own."""


def score(task: Task, student_uri: str, protocol: ProtocolConfig, measure: Measure, by_folds: bool) -> Score:
    """Probe a student on a task without its test split.

    Args:
        task: a task with train and valid clips.
        student_uri: folder of its run or export.
        protocol: settings of the probes.
        measure: measure of the score.
        by_folds: hold out every clip of train and valid once, by groups, instead of only the valid clips.

    Raises:
        ValueError: the task cannot be probed; names it.
    """
    labelled = cells.labelled_clips(task)
    with tempfile.TemporaryDirectory() as folder:  # the vectors of a trial are never needed again
        (vectors_ND,) = TrainedModel("student", student_uri).vectors(task, protocol, EmbeddingCache(folder))
    with errors_name(task, "student"):
        found = validate(vectors_ND, labelled, protocol.probes, by_folds)
    order = np.argsort(found.clips)
    groups = task.groups[found.clips[order]]
    return Score(task.name, found.accuracy(measure), found.scores[measure][order].tolist(), groups.tolist())


def mean_accuracy(scores: list[Score]) -> float:
    """Return the mean accuracy over the tasks, each with the same weight."""
    return float(np.mean([each.accuracy for each in scores]))


def draws(scores: list[Score], config: BootstrapConfig) -> np.ndarray:
    """Return bootstrap replicates of the mean over the tasks, paired between trials: (R,)."""
    drawn = [
        bootstrap.deviations(
            np.array([each.scores]), np.array(each.groups), config.replicates, config.seed, each.task
        ).accuracies
        for each in scores
    ]
    return bootstrap.mean_over_tasks(drawn)
