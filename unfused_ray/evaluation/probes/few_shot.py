"""The few-shot probe: a linear layer on a few labelled clips of each class, for several draws of these clips."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.preprocessing import StandardScaler

from unfused_ray.audio import randomness
from unfused_ray.config import Config, PositiveFloat, PositiveInt, Seed
from unfused_ray.evaluation.probes.clips import Part
from unfused_ray.evaluation.probes.logistic import CoordinateFrame, fit_path


class FewShotConfig(Config):
    """Number of labelled clips, and settings of the linear layer's training; the protocol file holds the values."""

    clips_per_class: PositiveInt
    """Labelled clips of each class; all clips of a class that has fewer."""
    draws: PositiveInt
    """Number of draws of the labelled clips, each fitted separately."""
    strength: PositiveFloat
    """C of the logistic regression, the same for all systems: no labels are left to choose it by."""
    tolerance: PositiveFloat
    """Tolerance of a fit, as in the linear probe."""
    max_iterations: PositiveInt
    """Largest number of iterations, as in the linear probe."""
    seed: Seed
    """Seed of the draws, which depend only on it and on the clips' classes: every system gets the same draws. If a clip
    is damaged for one system, the next clip of its class replaces it there; no other clip changes."""


class FewShotScores(NamedTuple):
    """Accuracies of held-out clips over the draws."""

    right: np.ndarray
    """(H,) float64, the share of the draws whose linear layer classifies a clip correctly."""
    num_unconverged: int
    """Draws whose fit ended before it converged."""


def few_shot_scores(
    vectors_ND: np.ndarray, class_ids_N: np.ndarray, part: Part, config: FewShotConfig
) -> FewShotScores:
    """Fit a linear layer to each draw, and score it on the held-out clips.

    Vectors are standardised by all clips to fit on, which needs no labels.

    Args:
        vectors_ND: vectors of all clips; those of the part are finite.
        class_ids_N: classes of all clips.
        part: clips to draw from, and clips to score.
        config: settings of the draws and the fits.

    Raises:
        ValueError: the clips to draw from are of one class.
    """
    scaler = StandardScaler().fit(vectors_ND[part.fitting].astype(np.float64))
    right_H, num_unconverged = np.zeros(len(part.held)), 0
    if not len(part.held):
        return FewShotScores(right_H, 0)
    for draw in range(config.draws):
        rows = draw_clips(class_ids_N, part.fitting, config, draw)
        frame = CoordinateFrame.of(vectors_ND[rows], scaler)
        coordinates = frame.coordinates(vectors_ND[rows])
        path = fit_path(coordinates, class_ids_N[rows], [config.strength], config.tolerance, config.max_iterations)
        (fitted,) = path
        num_unconverged += not fitted.converged
        right_H += fitted.model.predict(frame.coordinates(vectors_ND[part.held])) == class_ids_N[part.held]
    return FewShotScores(right_H / config.draws, num_unconverged)


def draw_clips(class_ids_N: np.ndarray, fitting: np.ndarray, config: FewShotConfig, draw: int) -> np.ndarray:
    """Draw the labelled clips; return their rows, class by class.

    Args:
        class_ids_N: classes of all clips.
        fitting: (F,) rows to draw from.
        config: number of clips and seed.
        draw: number of the draw.
    """
    # By a number for each clip, not by a permutation, which would change entirely without a damaged clip.
    order = fitting[np.argsort(randomness.uniform(config.seed, "few-shot clips", draw, fitting), kind="stable")]
    classes = class_ids_N[order]
    return np.concatenate([order[classes == class_id][: config.clips_per_class] for class_id in np.unique(classes)])
