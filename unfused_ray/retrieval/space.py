"""The space in which clips are compared: unit vectors, whose inner product is the similarity.

Shapes: N vectors; D numbers of an encoder's vector; C numbers of a vector in the space.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from unfused_ray.config import IndexMetric

_POWER = 0.25
"""Each component is divided by its variance to this power, half of the power that makes all variances equal.

On validation clips of the demo (six encoders and tasks), the nearest training clip is of the same class for 68.5 % by
cosine, 69.4 % in centred components, 75.5 % with this power, and 60.9 % with equal variances.
"""
_SMALLEST = 1e-6
"""Components with a smaller share of the variance than this are left out: they hold rounding errors."""
_ONE_DIRECTION = 1e-12
"""Largest variance of unit vectors in all, if they have one direction: float32 rounds them by 1e-14."""


@dataclass(frozen=True)
class VectorSpace:
    """Maps vectors to unit vectors whose inner product is their similarity."""

    mean: np.ndarray
    """(D,) float32, mean of the unit vectors."""
    components: np.ndarray | None
    """(D, C) float32; None only scales vectors to length 1."""

    @classmethod
    def fit(cls, sample_ND: np.ndarray, metric: IndexMetric, most: int) -> Self:
        """Fit the space of a metric to a sample of vectors.

        Args:
            sample_ND: vectors with a direction.
            metric: metric of the space.
            most: largest number of principal components.
        """
        unit_ND = unit(sample_ND.astype(np.float64))
        dim = unit_ND.shape[1]
        if metric == "cosine" or len(unit_ND) < 2:
            return cls(np.zeros(dim, np.float32), None)
        mean_D = unit_ND.mean(axis=0)
        centred_ND = unit_ND - mean_D
        variances_D, axes_DD = np.linalg.eigh(centred_ND.T @ centred_ND / (len(unit_ND) - 1))
        variances_D, axes_DD = variances_D[::-1], axes_DD[:, ::-1]
        kept = min(most, int(np.count_nonzero(variances_D > _SMALLEST * variances_D.sum())))
        if not kept or variances_D.sum() < _ONE_DIRECTION:
            return cls(np.zeros(dim, np.float32), None)
        signs_C = np.sign(axes_DD[np.abs(axes_DD[:, :kept]).argmax(axis=0), np.arange(kept)])  # eigh leaves them open
        components_DC = axes_DD[:, :kept] * signs_C / variances_D[:kept] ** _POWER
        return cls(mean_D.astype(np.float32), components_DC.astype(np.float32))

    @property
    def dim(self) -> int:
        """C, the number of components."""
        return len(self.mean) if self.components is None else self.components.shape[1]

    def reordered(self, order_C: np.ndarray) -> Self:
        """Return the space with its components in another order; without components, the space itself."""
        return self if self.components is None else replace(self, components=self.components[:, order_C])

    def apply(self, vectors_ND: np.ndarray) -> np.ndarray:
        """Map vectors with a direction: (N, D) → (N, C) float32 of length 1."""
        unit_ND = unit(vectors_ND.astype(np.float32))
        return unit_ND if self.components is None else unit((unit_ND - self.mean) @ self.components)


def unit(vectors_ND: np.ndarray) -> np.ndarray:
    """Divide vectors by their lengths; those without a direction stay zero."""
    lengths_N1 = np.linalg.norm(vectors_ND, axis=-1, keepdims=True)
    return vectors_ND / np.where(lengths_N1 > 0, lengths_N1, 1)


def has_direction(vectors_ND: np.ndarray) -> np.ndarray:
    """Return (N,) bool: True for a finite vector that is not zero, and whose length is a number in its precision."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths_N = np.linalg.norm(vectors_ND, axis=1)
    return np.isfinite(lengths_N) & (lengths_N > 0)


def best(similarities_QN: np.ndarray, count: int) -> np.ndarray:
    """Return the columns of the largest values of each row, the largest first: (Q, min(count, N)) int64.

    Equal values keep their order, but which of them make the cut at the end is undefined.
    """
    num_values = similarities_QN.shape[1]
    count = min(count, num_values)
    if not count:
        return np.zeros((len(similarities_QN), 0), np.int64)
    some_QK = (
        np.argpartition(similarities_QN, num_values - count, axis=1)[:, num_values - count :]
        if count < num_values
        else (np.broadcast_to(np.arange(count), similarities_QN.shape))
    )
    some_QK = np.sort(some_QK, axis=1)
    order_QK = np.argsort(-np.take_along_axis(similarities_QN, some_QK, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some_QK, order_QK, axis=1)
