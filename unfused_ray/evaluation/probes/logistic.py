"""Logistic regression along a path of regularisation, in as few coordinates as the clips span."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler


@dataclass(frozen=True)
class CoordinateFrame:
    """Coordinates in which a probe is fitted: standardised, then within the span of the training clips.

    With an L2 penalty the coefficients lie in that span, and a rotation changes neither their norm nor any logit. So
    with fewer clips than dimensions, the fit in N coordinates is the same as in D.
    """

    scaler: StandardScaler
    basis: np.ndarray | None
    """(D, N) float64, orthonormal columns; None if there are at least as many clips as dimensions."""

    @classmethod
    def of(cls, train_ND: np.ndarray, scaler: StandardScaler | None = None) -> CoordinateFrame:
        """Make the frame of the training clips' features, which are standardised by ``scaler`` or else by
        themselves."""
        scaler = scaler or StandardScaler().fit(train_ND.astype(np.float64))
        num_clips, dim = train_ND.shape
        if num_clips >= dim:
            return cls(scaler, None)
        return cls(scaler, np.linalg.qr(scaler.transform(train_ND.astype(np.float64)).T)[0])

    def coordinates(self, features_ND: np.ndarray) -> np.ndarray:
        """Return float64 coordinates of clips: ``(clips, min(N, D))``."""
        standardised = self.scaler.transform(features_ND.astype(np.float64))
        return standardised if self.basis is None else standardised @ self.basis


@dataclass(frozen=True)
class Fitted:
    """A fit at one strength."""

    model: LogisticRegression
    converged: bool
    iterations: int


def fit_path(
    train_NR: np.ndarray, class_ids_N: np.ndarray, strengths: Sequence[float], tolerance: float, max_iterations: int
) -> Iterator[Fitted]:
    """Yield fits from the strongest regularisation (smallest C) to the weakest, each started where the last ended.

    Args:
        train_NR: coordinates of the training clips.
        class_ids_N: their classes.
        strengths: values of C.
        tolerance: a fit has converged when no entry of its gradient is larger.
        max_iterations: largest number of iterations of a fit.

    Raises:
        ValueError: there is only one class.
    """
    if len(np.unique(class_ids_N)) < 2:
        raise ValueError(f"all {len(class_ids_N)} training clips of a probe are of one class: there is nothing to fit")
    model = LogisticRegression(tol=tolerance, max_iter=max_iterations, warm_start=True)
    for strength in sorted(strengths):
        model.set_params(C=strength)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.fit(train_NR, class_ids_N)
        converged = True
        for warning in caught:
            if issubclass(warning.category, ConvergenceWarning):
                converged = False
            else:
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        yield Fitted(copy.deepcopy(model), converged, int(model.n_iter_.max()))
