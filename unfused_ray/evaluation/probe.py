"""The linear probe: one linear layer on frozen features, its readout and regularisation chosen by validation.

The readout and the regularisation decide more than pre-training does, so every system has the same
choice among them, made without the test split.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from sklearn.model_selection import StratifiedGroupKFold
from threadpoolctl import threadpool_limits

from unfused_ray.config import Config, PositiveFloat, PositiveInt
from unfused_ray.evaluation.bootstrap import distinct_groups
from unfused_ray.evaluation.logistic import Fitted, Frame, fit_path

_log = logging.getLogger(__name__)


class ProbeConfig(Config):
    """How the linear layer is trained and chosen; the protocol file holds the values."""

    strengths: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
    """Values of C tried: the weight of the summed cross-entropy against half the squared norm of the coefficients."""
    tolerance: PositiveFloat
    """A fit has converged where no entry of the gradient of (mean cross-entropy + penalty / (C N)) is larger."""
    max_iterations: PositiveInt
    """Iterations of L-BFGS after which a fit ends without having converged."""
    folds: Annotated[int, Field(ge=2)]
    """Parts of the cross-validation within train, for tasks without a valid split."""


@dataclass(frozen=True)
class Labelled:
    """Classes, splits and groups of the N clips of a task."""

    class_ids: np.ndarray
    """(N,) int64, 0 to num_classes - 1."""
    splits: np.ndarray
    """(N,) "train", "valid" or "test"."""
    groups: np.ndarray
    """(N,) recordings or speakers that may not be torn apart; "" is a clip that is its own group."""
    num_classes: int


@dataclass(frozen=True)
class Scores:
    """Scores of K classes."""

    precision: np.ndarray
    """(K,) float64; 0 for a class never predicted."""
    recall: np.ndarray
    """(K,) float64; 0 for a class without clips."""
    f1: np.ndarray
    """(K,) float64."""
    support: np.ndarray
    """(K,) int64 clips of the class."""
    confusion: np.ndarray
    """(K, K) int64 clips, true class by predicted class."""


@dataclass(frozen=True)
class Validation:
    """The best of all readouts and strengths, on clips that it was not fitted on."""

    readout: str
    strength: float
    accuracies: dict[tuple[str, float], float]
    """By (readout, strength)."""
    clips: np.ndarray
    """(V,) int64 rows of the clips that were held out, each once."""
    correct: np.ndarray
    """(V,) bool, True where the chosen readout and strength are right."""
    fit: tuple[Frame, Fitted] | None
    """The chosen fit, on train alone; None after a cross-validation, whose fits are of parts."""

    @property
    def accuracy(self) -> float:
        """Accuracy of the chosen readout and strength."""
        return self.accuracies[self.readout, self.strength]


@dataclass(frozen=True)
class ProbeResult:
    """The chosen linear layer's accuracies (0 to 1) and predictions, and how it was chosen."""

    readout: str
    strength: float
    validation_accuracies: dict[tuple[str, float], float]
    """By (readout, strength)."""
    train_accuracy: float
    validation_accuracy: float
    test_accuracy: float
    predictions: np.ndarray
    """(T,) int64 class of every test clip, in the order of the test rows; -1 for a damaged clip."""
    scores: Scores
    """Scores on the test clips."""
    converged: bool
    """True if the chosen fit did."""
    iterations: int
    """Iterations of the chosen fit, which starts where that of the strength before ended."""
    num_damaged: int
    """Clips of any split that have a feature that is not finite."""

    def to_json(self) -> dict[str, Any]:
        """Everything in plain values: arrays as lists, validation accuracies as a list of records."""
        accuracies = [
            {"readout": readout, "strength": strength, "accuracy": accuracy}
            for (readout, strength), accuracy in self.validation_accuracies.items()
        ]
        scores = {name: values.tolist() for name, values in vars(self.scores).items()}
        changed = {"validation_accuracies": accuracies, "predictions": self.predictions.tolist(), "scores": scores}
        return vars(self) | changed


# One thread: the products are small, and where other work is on the machine, OpenMP's threads wait for each other far
# longer than they compute (280 clips of 9 classes: 3 s on one thread, 175 s on two of two busy cores).
@threadpool_limits.wrap(limits=1)
def linear_probe(features: Mapping[str, np.ndarray], labelled: Labelled, config: ProbeConfig) -> ProbeResult:
    """Choose readout and regularisation by validation accuracy, then classify the test split once.

    Features are standardised by the training clips; multinomial logistic regression with an L2 penalty (of two
    classes: binomial). Without a valid split, grouped and stratified cross-validation within train takes its place.
    Of equal validation accuracies, the stronger regularisation wins, then the first readout. A clip with a feature
    that is not finite is damaged: left out of train and valid, wrong in test.

    Args:
        features: ``(N, D)`` by the readout's name; D may differ. Each is asked for when it is needed, one at a time.
        labelled: classes, splits and groups of the N clips.
        config: strengths and when a fit has converged.

    Raises:
        ValueError: shapes or class ids do not fit, train or test is empty, or train has one class only.
    """
    whole_N = _check(features, labelled)
    train = np.flatnonzero((labelled.splits == "train") & whole_N)
    test = np.flatnonzero(labelled.splits == "test")
    if not len(train) or not len(test):
        raise ValueError(f"a probe needs train and test clips, not {len(train)} whole train and {len(test)} test clips")
    chosen = _validate(features, labelled, config, whole_N)
    readout, strength = chosen.readout, chosen.strength

    features_ND = features[readout]
    frame, fitted = chosen.fit or _fit(features_ND[train], labelled.class_ids[train], strength, config)
    if not fitted.converged:
        _log.warning("the probe of %s with C=%g ended after %d iterations", readout, strength, fitted.iterations)
    predictions_T = np.full(len(test), -1, np.int64)
    readable = whole_N[test]
    if readable.any():
        predictions_T[readable] = fitted.model.predict(frame.coordinates(features_ND[test[readable]]))
    trained = fitted.model.predict(frame.coordinates(features_ND[train]))
    return ProbeResult(
        readout=readout,
        strength=strength,
        validation_accuracies=chosen.accuracies,
        train_accuracy=float((trained == labelled.class_ids[train]).mean()),
        validation_accuracy=chosen.accuracy,
        test_accuracy=float((predictions_T == labelled.class_ids[test]).mean()),
        predictions=predictions_T,
        scores=class_scores(labelled.class_ids[test], predictions_T, labelled.num_classes),
        converged=fitted.converged,
        iterations=fitted.iterations,
        num_damaged=int((~whole_N).sum()),
    )


@threadpool_limits.wrap(limits=1)
def validate(
    features: Mapping[str, np.ndarray], labelled: Labelled, config: ProbeConfig, by_folds: bool = False
) -> Validation:
    """Choose readout and regularisation as :func:`linear_probe` does, without touching the test clips.

    Args:
        features, labelled, config: as for :func:`linear_probe`.
        by_folds: cross-validate by groups within train and valid together, instead of fitting on train alone: of a
            small task, more clips are held out.

    Raises:
        ValueError: shapes or class ids do not fit, no training clip is whole, or train has one class only.
    """
    return _validate(features, labelled, config, _check(features, labelled), by_folds)


def _validate(
    features: Mapping[str, np.ndarray],
    labelled: Labelled,
    config: ProbeConfig,
    whole_N: np.ndarray,
    by_folds: bool = False,
) -> Validation:
    """:func:`validate` on the clips that are whole: (N,) bool."""
    train = np.flatnonzero((labelled.splits == "train") & whole_N)
    valid = np.flatnonzero((labelled.splits == "valid") & whole_N)
    if not len(train):
        raise ValueError("a probe needs training clips, and none is whole")
    if by_folds:
        train, valid = np.union1d(train, valid), valid[:0]
    parts = [(train, valid)] if len(valid) else _folds(labelled, train, config.folds)
    accuracies: dict[tuple[str, float], float] = {}
    for readout, features_ND in features.items():
        tried = _try(features_ND, labelled.class_ids, parts, config)
        accuracies |= {(readout, strength): float(one.correct.mean()) for strength, one in tried.items()}
        # Stable: of equal accuracies the strongest regularisation wins, then the first readout.
        best = max(sorted(accuracies, key=lambda choice: choice[1]), key=lambda choice: accuracies[choice])
        if best[0] == readout:
            chosen = tried[best[1]]
    fit = None if len(parts) > 1 else chosen.fit
    return Validation(*best, accuracies, np.concatenate([held for _, held in parts]), chosen.correct, fit)


def class_scores(true_N: np.ndarray, predicted_N: np.ndarray, num_classes: int) -> Scores:
    """Scores of every class; a prediction of -1 is wrong, and in no column of the confusion matrix."""
    labels = np.arange(num_classes)
    precision, recall, f1, support = precision_recall_fscore_support(
        true_N, predicted_N, labels=labels, zero_division=0.0
    )
    return Scores(precision, recall, f1, support, confusion_matrix(true_N, predicted_N, labels=labels))


def _check(features: Mapping[str, np.ndarray], labelled: Labelled) -> np.ndarray:
    """Refuse features that do not fit; (N,) bool, True for a clip with finite features in every readout."""
    num_clips = len(labelled.class_ids)
    if not features:
        raise ValueError("a probe needs features of at least one readout")
    for readout, features_ND in features.items():
        if features_ND.ndim != 2 or len(features_ND) != num_clips:
            raise ValueError(f"features {readout!r} have shape {features_ND.shape} for {num_clips} labelled clips")
    wrong = (labelled.class_ids < 0) | (labelled.class_ids >= labelled.num_classes)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"clip {row} has class {labelled.class_ids[row]}, not 0 to {labelled.num_classes - 1}")
    return np.logical_and.reduce([np.isfinite(features_ND).all(axis=1) for features_ND in features.values()])


def _folds(labelled: Labelled, train: np.ndarray, folds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows to fit on and rows to score, a pair for each fold of the training rows; no group is in both."""
    groups = distinct_groups(labelled.groups[train])
    num_groups = len(np.unique(groups))
    if num_groups < folds:
        raise ValueError(
            f"without a valid split, {folds} folds need as many groups in train, not {num_groups}: give valid clips, "
            "or set folds lower"
        )
    pairs = StratifiedGroupKFold(folds).split(train, labelled.class_ids[train], groups)
    return [(train[fitting], train[held]) for fitting, held in pairs]


class _Tried(NamedTuple):
    """A strength on one readout."""

    correct: np.ndarray
    """(V,) bool, True where a held-out row is classified correctly, of all parts one after another."""
    fit: tuple[Frame, Fitted]
    """Fit of the last part."""


def _try(
    features_ND: np.ndarray,
    class_ids_N: np.ndarray,
    parts: list[tuple[np.ndarray, np.ndarray]],
    config: ProbeConfig,
) -> dict[float, _Tried]:
    """Every strength, fitted on the first rows of each part and tried on the second."""
    tried: dict[float, _Tried] = {}
    for fitting, held in parts:
        frame = Frame.of(features_ND[fitting])
        held_coordinates = frame.coordinates(features_ND[held])
        path = fit_path(
            frame.coordinates(features_ND[fitting]), class_ids_N[fitting], config.strengths, *_limits(config)
        )
        for strength, fitted in zip(sorted(config.strengths), path, strict=True):
            before = tried[strength].correct if strength in tried else np.zeros(0, bool)
            correct = fitted.model.predict(held_coordinates) == class_ids_N[held]
            tried[strength] = _Tried(np.concatenate([before, correct]), (frame, fitted))
    return tried


def _fit(train_ND: np.ndarray, class_ids_N: np.ndarray, strength: float, config: ProbeConfig) -> tuple[Frame, Fitted]:
    """A strength on all training clips, by the path of those before it."""
    frame = Frame.of(train_ND)
    strengths = [other for other in config.strengths if other <= strength]
    *_, fitted = fit_path(frame.coordinates(train_ND), class_ids_N, strengths, *_limits(config))
    return frame, fitted


def _limits(config: ProbeConfig) -> tuple[float, int]:
    return config.tolerance, config.max_iterations
