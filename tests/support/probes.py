"""The probes written with scikit-learn, as a reference for tests of evaluations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from unfused_ray.config import Measure
from unfused_ray.evaluation.probes.few_shot import draw_clips
from unfused_ray.evaluation.probes.probe import ProbesConfig
from unfused_ray.evaluation.tasks import Task


@dataclass(frozen=True)
class NaiveProbe:
    """Scores of a task's validation clips and test clips, by measure."""

    strength: float
    """The C that validation chooses."""
    predictions: np.ndarray
    """Predictions of the linear probe for the test clips."""
    valid: dict[Measure, np.ndarray]
    test: dict[Measure, np.ndarray]


def naive_probe(vectors_ND: np.ndarray, task: Task, config: ProbesConfig) -> NaiveProbe:
    """Probe a task that has a valid split; only the few-shot draws come from the package."""
    class_ids = task.class_ids
    train, valid, test = (np.flatnonzero(task.splits == split) for split in ("train", "valid", "test"))
    wide_ND = vectors_ND.astype(np.float64)  # in float32 the solver stops before it reaches its tolerance
    scaled = StandardScaler().fit(wide_ND[train]).transform(wide_ND)

    def fitted(rows: np.ndarray, strength: float) -> LogisticRegression:
        return LogisticRegression(C=strength, tol=1e-6, max_iter=10_000).fit(scaled[rows], class_ids[rows])

    def scores(asked: np.ndarray, linear: LogisticRegression) -> dict[Measure, np.ndarray]:
        search = NearestNeighbors(n_neighbors=config.neighbours.count, metric="cosine").fit(scaled[train])
        nearest = train[search.kneighbors(scaled[asked], return_distance=False)]
        neighbours = (class_ids[nearest] == class_ids[asked][:, None]).mean(axis=1)
        right = []
        for draw in range(config.few_shot.draws):
            few = draw_clips(class_ids, train, config.few_shot, draw)
            right.append(fitted(few, config.few_shot.strength).predict(scaled[asked]) == class_ids[asked])
        few_shot = np.mean(right, axis=0)
        return {
            "headline": (neighbours + few_shot) / 2,
            "neighbours": neighbours,
            "few-shot": few_shot,
            "linear": (linear.predict(scaled[asked]) == class_ids[asked]).astype(float),
        }

    tried = {strength: fitted(train, strength) for strength in sorted(config.linear.strengths)}
    chosen = max(tried, key=lambda strength: tried[strength].score(scaled[valid], class_ids[valid]))  # first of equals
    linear = tried[chosen]
    return NaiveProbe(chosen, linear.predict(scaled[test]), scores(valid, linear), scores(test, linear))
