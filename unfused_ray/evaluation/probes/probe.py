"""All probes of a system on a task: validated, then tested once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from threadpoolctl import threadpool_limits

from unfused_ray.config import Config, Measure
from unfused_ray.evaluation.probes.clips import Labelled, Part, finite_clips, validation_parts
from unfused_ray.evaluation.probes.few_shot import FewShotConfig, few_shot_scores
from unfused_ray.evaluation.probes.linear import LinearConfig, LinearResult, choose_strength, predict
from unfused_ray.evaluation.probes.neighbours import NeighboursConfig, nearest_clips, neighbour_scores

_SHOWN = 4
"""Number of nearest clips that a result keeps, to look at and to listen to."""


class ProbesConfig(Config):
    """Settings of all probes; the protocol file holds and explains the values."""

    folds: Annotated[int, Field(ge=2)]
    """Number of folds of the cross-validation within train, for tasks without a valid split."""
    linear: LinearConfig
    few_shot: FewShotConfig
    neighbours: NeighboursConfig


@dataclass(frozen=True)
class ClassScores:
    """Scores of K classes."""

    precision: np.ndarray
    """(K,) float64; 0 for a class never predicted."""
    recall: np.ndarray
    """(K,) float64; 0 for a class without clips."""
    f1: np.ndarray
    """(K,) float64."""
    support: np.ndarray
    """(K,) int64 number of clips of the class."""
    confusion: np.ndarray
    """(K, K) int64 counts of clips, true class by predicted class."""


@dataclass(frozen=True)
class Validation:
    """Scores on clips that were held out from training and validation."""

    clips: np.ndarray
    """(V,) int64 rows, each once."""
    scores: dict[Measure, np.ndarray]
    """(V,) float64, 0 to 1, scores by measure."""

    def accuracy(self, measure: Measure) -> float:
        """Return the mean score."""
        return float(self.scores[measure].mean())


@dataclass(frozen=True)
class ProbeResult:
    """The probes of one network on a task."""

    scores: dict[Measure, np.ndarray]
    """(T,) float64, 0 to 1, of every test clip in the order of the test rows, by measure; 0 for a damaged clip."""
    validation: Validation
    linear: LinearResult
    """The linear probe; its predictions cover all test clips, with -1 for a damaged one."""
    classes: ClassScores
    """Scores of the linear probe on the test clips."""
    nearest: np.ndarray
    """(T, up to 4) int64 rows of the training clips nearest to each test clip, the nearest first; -1 for a damaged test
    clip."""
    num_damaged: int
    """Clips of any split with a value that is not finite."""
    num_unconverged: int
    """Draws of the few-shot probe whose fit ended before it converged."""

    def to_json(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        return {
            "scores": _plain(self.scores),
            "validation": {"clips": self.validation.clips.tolist(), "scores": _plain(self.validation.scores)},
            "linear": self.linear.to_json(),
            "classes": _plain(vars(self.classes)),
            "nearest": self.nearest.tolist(),
            "num_damaged": self.num_damaged,
            "few_shot": {"num_unconverged": self.num_unconverged},
        }


# One thread: the products are small, and on a busy machine OpenMP's threads wait for each other far longer than they
# compute (280 clips of 9 classes: 3 s on one thread, 175 s on two of two busy cores).
@threadpool_limits.wrap(limits=1)
def probe(vectors_ND: np.ndarray, labelled: Labelled, config: ProbesConfig) -> ProbeResult:
    """Validate all probes, then classify the test split once.

    Vectors are standardised by the training clips. A clip whose vector is not finite is damaged: left out of train and
    valid, wrong in test.

    Args:
        vectors_ND: (N, D) float32.
        labelled: classes, splits and groups of the N clips.
        config: settings of the probes.

    Raises:
        ValueError: shapes or class ids do not match, train or test is empty, all clips of train or of a valid split
            are damaged, or train has only one class.
    """
    whole_N = finite_clips(vectors_ND, labelled)
    num_train = int((labelled.splits == "train").sum())
    train = np.flatnonzero((labelled.splits == "train") & whole_N)
    test = np.flatnonzero(labelled.splits == "test")
    if not num_train or not len(test):
        raise ValueError(f"a probe needs train and test clips, not {num_train} train and {len(test)} test clips")
    class_ids = labelled.class_ids
    parts = validation_parts(labelled, whole_N, config.folds)
    chosen = choose_strength(vectors_ND, class_ids, parts, config.linear)
    validation, _ = _scores(vectors_ND, class_ids, parts, _nearest(vectors_ND, parts, config), config)
    readable = whole_N[test]
    part = Part(train, test[readable])
    linear = predict(vectors_ND, class_ids, part, chosen, config.linear)
    (found_HK,) = _nearest(vectors_ND, [part], config)
    found, num_unconverged = _scores(vectors_ND, class_ids, [part], [found_HK], config)
    found["linear"] = (linear.predictions == class_ids[part.held]).astype(np.float64)
    predictions_T = np.full(len(test), -1, np.int64)
    predictions_T[readable] = linear.predictions
    scores = {measure: np.zeros(len(test)) for measure in found}
    for measure, values in found.items():
        scores[measure][readable] = values
    nearest = np.full((len(test), min(_SHOWN, len(train))), -1, np.int64)
    nearest[readable] = found_HK[:, :_SHOWN]
    return ProbeResult(
        scores=scores,
        validation=Validation(_held(parts), {**validation, "linear": chosen.correct.astype(np.float64)}),
        linear=replace(linear, predictions=predictions_T),
        classes=class_scores(class_ids[test], predictions_T, labelled.num_classes),
        nearest=nearest,
        num_damaged=int((~whole_N).sum()),
        num_unconverged=num_unconverged,
    )


@threadpool_limits.wrap(limits=1)
def validate(
    vectors_ND: np.ndarray, labelled: Labelled, config: ProbesConfig, by_folds: bool = False, linear: bool = True
) -> Validation:
    """Score validation clips as :func:`probe` does, without touching the test clips.

    Args:
        vectors_ND, labelled, config: as for :func:`probe`.
        by_folds: cross-validate by groups within train and valid together, instead of fitting on train alone; in a
            small task, this holds more clips out.
        linear: if False, leave out the linear probe, which takes most of the time.

    Raises:
        ValueError: shapes or class ids do not match, all clips of train or of a valid split are damaged, or train has
            only one class.
    """
    parts = validation_parts(labelled, finite_clips(vectors_ND, labelled), config.folds, by_folds)
    scores, _ = _scores(vectors_ND, labelled.class_ids, parts, _nearest(vectors_ND, parts, config), config)
    if linear:
        scores["linear"] = choose_strength(vectors_ND, labelled.class_ids, parts, config.linear).correct.astype(float)
    return Validation(_held(parts), scores)


def class_scores(true_N: np.ndarray, predicted_N: np.ndarray, num_classes: int) -> ClassScores:
    """Score every class; a prediction of -1 is wrong, and in no column of the confusion matrix."""
    labels = np.arange(num_classes)
    precision, recall, f1, support = precision_recall_fscore_support(
        true_N, predicted_N, labels=labels, zero_division=0.0
    )
    return ClassScores(precision, recall, f1, support, confusion_matrix(true_N, predicted_N, labels=labels))


def _held(parts: Sequence[Part]) -> np.ndarray:
    """Return the rows of the parts' held-out clips, one part after another."""
    return np.concatenate([held for _, held in parts])


def _nearest(vectors_ND: np.ndarray, parts: Sequence[Part], config: ProbesConfig) -> list[np.ndarray]:
    """Find the nearest clips of each part's held-out clips, as many as are scored or shown."""
    return [nearest_clips(vectors_ND, part, max(config.neighbours.count, _SHOWN)) for part in parts]


def _scores(
    vectors_ND: np.ndarray,
    class_ids_N: np.ndarray,
    parts: Sequence[Part],
    nearest: Sequence[np.ndarray],
    config: ProbesConfig,
) -> tuple[dict[Measure, np.ndarray], int]:
    """Score the parts' held-out clips, one part after another, by all measures except the linear one.

    Return the scores, and the number of few-shot fits that did not converge.
    """
    count = config.neighbours.count
    neighbours = np.concatenate(
        [neighbour_scores(class_ids_N, part, found[:, :count]) for part, found in zip(parts, nearest, strict=True)]
    )
    drawn = [few_shot_scores(vectors_ND, class_ids_N, part, config.few_shot) for part in parts]
    few_shot = np.concatenate([right for right, _ in drawn])
    scores: dict[Measure, np.ndarray] = {"neighbours": neighbours, "few-shot": few_shot}
    return {"headline": (neighbours + few_shot) / 2, **scores}, sum(count for _, count in drawn)


def _plain(arrays: dict[Any, np.ndarray]) -> dict[str, Any]:
    return {str(name): values.tolist() for name, values in arrays.items()}
