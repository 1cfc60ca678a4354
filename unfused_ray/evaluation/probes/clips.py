"""The labelled clips of a task in the form that probes take: clips to fit on, clips held out, and undamaged clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from unfused_ray.evaluation.bootstrap import distinct_groups


@dataclass(frozen=True)
class Labelled:
    """Classes, splits and groups of the N clips of a task."""

    class_ids: np.ndarray
    """(N,) int64, 0 to num_classes - 1."""
    splits: np.ndarray
    """(N,) "train", "valid" or "test"."""
    groups: np.ndarray
    """(N,) recordings or speakers that must stay in one part; "" is a clip that is its own group."""
    num_classes: int


class Part(NamedTuple):
    """Clips to fit on, and clips that are held out from the fit."""

    fitting: np.ndarray
    """(F,) int64 rows."""
    held: np.ndarray
    """(H,) int64 rows."""


def finite_clips(vectors_ND: np.ndarray, labelled: Labelled) -> np.ndarray:
    """Return (N,) bool, True for a clip whose vector is finite.

    Raises:
        ValueError: the vectors do not match the clips, or a class is beyond ``num_classes``.
    """
    num_clips = len(labelled.class_ids)
    if vectors_ND.ndim != 2 or len(vectors_ND) != num_clips:
        raise ValueError(f"vectors have shape {vectors_ND.shape} for {num_clips} labelled clips")
    wrong = (labelled.class_ids < 0) | (labelled.class_ids >= labelled.num_classes)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"clip {row} has class {labelled.class_ids[row]}, not 0 to {labelled.num_classes - 1}")
    return np.isfinite(vectors_ND).all(axis=1)


def validation_parts(labelled: Labelled, whole_N: np.ndarray, folds: int, by_folds: bool = False) -> list[Part]:
    """Return the parts that validation fits on and scores: train and valid, or folds if there is no valid split.

    Clips of a fold whose class the other folds lack are left out: no probe could be right about them.

    Args:
        labelled: classes, splits and groups.
        whole_N: (N,) bool, clips that can be used.
        folds: parts of a grouped and stratified cross-validation within train.
        by_folds: cross-validate within train and valid together, even if there is a valid split; in a small task, this
            holds more clips out.

    Raises:
        ValueError: all clips of train, or of a valid split that is needed, are damaged; or there are fewer groups than
            folds, or no class has enough clips and groups to hold some out.
    """
    train = np.flatnonzero((labelled.splits == "train") & whole_N)
    valid = np.flatnonzero((labelled.splits == "valid") & whole_N)
    has_valid = "valid" in labelled.splits and not by_folds
    for split, rows in (("train", train), ("valid", valid)):
        if not len(rows) and (split == "train" or has_valid):
            raise ValueError(
                f"all {(labelled.splits == split).sum()} {split} clips are damaged, and a probe needs some. If their "
                "audio cannot be read, copy the source again, prepare it again, or leave this task out"
            )
    if has_valid:
        return [Part(train, valid)]
    rows = np.union1d(train, valid)
    groups = distinct_groups(labelled.groups[rows])
    num_groups = len(np.unique(groups))
    if num_groups < folds:
        raise ValueError(
            f"{folds} folds that are held out in turn need as many groups of clips, not {num_groups}: give valid "
            "clips, or lower probes.folds of the protocol"
        )
    classes = labelled.class_ids[rows]
    if (most := int(np.bincount(classes).max())) < folds:
        raise ValueError(
            f"{folds} folds that are held out in turn need as many clips of a class, the largest has {most}: give "
            "valid clips, or lower probes.folds of the protocol"
        )
    pairs = StratifiedGroupKFold(folds).split(rows, classes, groups)
    seen = [(fitting, held[np.isin(classes[held], classes[fitting])]) for fitting, held in pairs]
    parts = [Part(rows[fitting], rows[held]) for fitting, held in seen if len(held)]
    if len(parts) < 2:
        raise ValueError(
            "whole groups are held out in turn, and no class has a second group left to learn from: give valid clips, "
            "or smaller groups"
        )
    return parts
