"""The neighbour probe: the share of the nearest training clips that have the clip's class."""

from __future__ import annotations

import numpy as np
from sklearn.preprocessing import StandardScaler

from unfused_ray.config import Config, PositiveInt
from unfused_ray.evaluation.probes.clips import Part

_ROWS_AT_A_TIME = 1024


class NeighboursConfig(Config):
    """Number of neighbours; the protocol file holds the value."""

    count: PositiveInt
    """Number of nearest training clips per clip."""


def nearest_clips(vectors_ND: np.ndarray, part: Part, count: int) -> np.ndarray:
    """Find the fitting clips nearest to each held-out clip: (H, K) int64 rows, the nearest first.

    Nearness is the cosine of vectors that are standardised by the fitting clips. Nothing is trained.

    Args:
        vectors_ND: vectors of all clips; those of the part are finite.
        part: clips to search, and held-out clips.
        count: K; all clips if there are fewer.
    """
    scaler = StandardScaler().fit(vectors_ND[part.fitting].astype(np.float64))
    known_FD = _unit(scaler, vectors_ND[part.fitting])
    count = min(count, len(known_FD))
    nearest = np.empty((len(part.held), count), np.int64)
    for first in range(0, len(part.held), _ROWS_AT_A_TIME):
        rows = slice(first, first + _ROWS_AT_A_TIME)
        cosines_HF = _unit(scaler, vectors_ND[part.held[rows]]) @ known_FD.T
        some_HK = np.argpartition(-cosines_HF, count - 1, axis=1)[:, :count]
        order_HK = np.argsort(-np.take_along_axis(cosines_HF, some_HK, axis=1), axis=1, kind="stable")
        nearest[rows] = part.fitting[np.take_along_axis(some_HK, order_HK, axis=1)]
    return nearest


def neighbour_scores(class_ids_N: np.ndarray, part: Part, nearest_HK: np.ndarray) -> np.ndarray:
    """Return the precision of the nearest clips: (H,) float64, the share that has the held-out clip's class."""
    return (class_ids_N[nearest_HK] == class_ids_N[part.held, None]).mean(axis=1)


def _unit(scaler: StandardScaler, vectors_ND: np.ndarray) -> np.ndarray:
    standardised_ND = scaler.transform(vectors_ND.astype(np.float64))
    lengths_N = np.linalg.norm(standardised_ND, axis=1, keepdims=True)
    return (standardised_ND / np.where(lengths_N > 0, lengths_N, 1.0)).astype(np.float32)
