"""The linear probe: a linear layer on frozen vectors of all training clips; validation chooses its regularisation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from unfused_ray.config import Config, PositiveFloat, PositiveInt
from unfused_ray.evaluation.probes.clips import Part
from unfused_ray.evaluation.probes.logistic import CoordinateFrame, Fitted, fit_path

logger = logging.getLogger(__name__)


class LinearConfig(Config):
    """Settings of the linear layer's training and choice; the protocol file holds the values."""

    strengths: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
    """Values of C to try: the weight of the summed cross-entropy relative to half the squared norm of the
    coefficients."""
    tolerance: PositiveFloat
    """A fit has converged when no entry of the gradient of (mean cross-entropy + penalty / (C N)) is larger than
    this."""
    max_iterations: PositiveInt
    """Number of L-BFGS iterations after which a fit ends unconverged."""


@dataclass(frozen=True)
class Chosen:
    """The strength that scored best on clips that it was not fitted on."""

    strength: float
    accuracies: dict[float, float]
    """Validation accuracies by strength."""
    correct: np.ndarray
    """(V,) bool, True where the chosen strength is right; the held-out clips of all parts, one part after another."""
    fit: tuple[CoordinateFrame, Fitted] | None
    """The chosen fit, if there is a single part; None after a cross-validation, whose fits are of parts."""

    @property
    def accuracy(self) -> float:
        """Accuracy of the chosen strength."""
        return self.accuracies[self.strength]


@dataclass(frozen=True)
class LinearResult:
    """The chosen linear layer: its predictions, and how it was chosen."""

    strength: float
    accuracies: dict[float, float]
    """Validation accuracies by strength."""
    train_accuracy: float
    predictions: np.ndarray
    """(H,) int64 predicted class of every held-out clip."""
    converged: bool
    """True if the chosen fit has converged."""
    iterations: int
    """Iterations of the chosen fit, which starts from the fit of the previous strength."""

    def to_json(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        accuracies = [{"strength": strength, "accuracy": value} for strength, value in self.accuracies.items()]
        return vars(self) | {"accuracies": accuracies, "predictions": self.predictions.tolist()}


def choose_strength(
    vectors_ND: np.ndarray, class_ids_N: np.ndarray, parts: Sequence[Part], config: LinearConfig
) -> Chosen:
    """Fit every strength on the fitting clips of each part, and choose by the accuracy on the held-out clips.

    Among equal accuracies, the stronger regularisation wins.

    Args:
        vectors_ND: vectors of all clips; those of the parts are finite.
        class_ids_N: classes of all clips.
        parts: from :func:`clips.validation_parts`.
        config: strengths and limits of a fit.

    Raises:
        ValueError: the clips to fit on are of one class.
    """
    strengths = sorted(config.strengths)
    correct: dict[float, list[np.ndarray]] = {strength: [] for strength in strengths}
    fits: dict[float, tuple[CoordinateFrame, Fitted]] = {}
    for fitting, held in parts:
        frame = CoordinateFrame.of(vectors_ND[fitting])
        held_HR = frame.coordinates(vectors_ND[held])
        path = fit_path(frame.coordinates(vectors_ND[fitting]), class_ids_N[fitting], strengths, *_limits(config))
        for strength, fitted in zip(strengths, path, strict=True):
            correct[strength].append(fitted.model.predict(held_HR) == class_ids_N[held])
            fits[strength] = frame, fitted
    joined = {strength: np.concatenate(found) for strength, found in correct.items()}
    accuracies = {strength: float(right.mean()) for strength, right in joined.items()}
    best = max(strengths, key=lambda strength: accuracies[strength])  # the first of equals
    return Chosen(best, accuracies, joined[best], fits[best] if len(parts) == 1 else None)


def predict(
    vectors_ND: np.ndarray, class_ids_N: np.ndarray, part: Part, chosen: Chosen, config: LinearConfig
) -> LinearResult:
    """Classify the held-out clips with the chosen strength, fitted on the training clips.

    Args:
        vectors_ND, class_ids_N: vectors and classes of all clips.
        part: training clips, and test clips.
        chosen: strength; its fit, if it has one, was on these training clips.
        config: limits of a fit.
    """
    fitting, held = part
    frame, fitted = chosen.fit or _fit(vectors_ND[fitting], class_ids_N[fitting], chosen.strength, config)
    if not fitted.converged:
        logger.warning(
            "a linear probe with C=%g has not converged in %d iterations", chosen.strength, fitted.iterations
        )
    trained = fitted.model.predict(frame.coordinates(vectors_ND[fitting]))
    predictions = fitted.model.predict(frame.coordinates(vectors_ND[held])) if len(held) else np.zeros(0, np.int64)
    return LinearResult(
        strength=chosen.strength,
        accuracies=chosen.accuracies,
        train_accuracy=float((trained == class_ids_N[fitting]).mean()),
        predictions=predictions,
        converged=fitted.converged,
        iterations=fitted.iterations,
    )


def _fit(
    train_ND: np.ndarray, class_ids_N: np.ndarray, strength: float, config: LinearConfig
) -> tuple[CoordinateFrame, Fitted]:
    """Fit a strength on all training clips, along the path of the strengths before it."""
    frame = CoordinateFrame.of(train_ND)
    strengths = [other for other in config.strengths if other <= strength]
    *_, fitted = fit_path(frame.coordinates(train_ND), class_ids_N, strengths, *_limits(config))
    return frame, fitted


def _limits(config: LinearConfig) -> tuple[float, int]:
    return config.tolerance, config.max_iterations
