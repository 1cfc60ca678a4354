"""The neighbour probe: of the training clips whose vectors are nearest, how many have the clip's class?"""

from __future__ import annotations

import numpy as np
from sklearn.preprocessing import StandardScaler

from unfused_ray.config import Config, PositiveInt
from unfused_ray.evaluation.probes.clips import Part

_ROWS_AT_A_TIME = 1024


class NeighboursConfig(Config):
    """How many neighbours are asked; the protocol file holds the value."""

    count: PositiveInt
    """Nearest training clips of each clip."""


def neighbour_scores(
    vectors_ND: np.ndarray, class_ids_N: np.ndarray, part: Part, config: NeighboursConfig
) -> np.ndarray:
    """Precision of the nearest clips: (H,) float64, the share of them that have the held-out clip's class.

    Nearness is the cosine of vectors that are standardised by the clips to fit on. Nothing is trained.

    Args:
        vectors_ND: of all clips; those of the part are finite.
        class_ids_N: of all clips.
        part: clips to look among, and clips that are asked about.
        config: number of neighbours; of fewer clips, all.
    """
    scaler = StandardScaler().fit(vectors_ND[part.fitting].astype(np.float64))
    known_FD = _unit(scaler, vectors_ND[part.fitting])
    classes_F = class_ids_N[part.fitting]
    count = min(config.count, len(classes_F))
    scores = []
    for first in range(0, len(part.held), _ROWS_AT_A_TIME):
        rows = part.held[first : first + _ROWS_AT_A_TIME]
        cosines_HF = _unit(scaler, vectors_ND[rows]) @ known_FD.T
        nearest_HK = np.argpartition(-cosines_HF, count - 1, axis=1)[:, :count]
        scores.append((classes_F[nearest_HK] == class_ids_N[rows, None]).mean(axis=1))
    return np.concatenate(scores) if scores else np.zeros(0)


def _unit(scaler: StandardScaler, vectors_ND: np.ndarray) -> np.ndarray:
    standardised_ND = scaler.transform(vectors_ND.astype(np.float64))
    lengths_N = np.linalg.norm(standardised_ND, axis=1, keepdims=True)
    return (standardised_ND / np.where(lengths_N > 0, lengths_N, 1.0)).astype(np.float32)
