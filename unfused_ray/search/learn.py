"""Learns from marks: a linear classifier over the whole collection, and the clips it is least sure of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from unfused_ray.search.collection import Collection

_STRENGTH = 10.0
"""C of the logistic regression on unit vectors."""
_FOLDS = 5


@dataclass(frozen=True)
class Learned:
    """A linear classifier of vectors in the space: above 0 is to keep."""

    weights: np.ndarray
    """(C,) float32."""
    bias: float
    num_keep: int
    num_reject: int
    right: float | None
    """Share of the marks that classifiers of the other marks are right about; None if there are too few."""

    @property
    def text(self) -> str:
        """What was learnt, in words."""
        marks = f"{self.num_keep} kept and {self.num_reject} rejected"
        if self.right is None:
            return f"learnt from {marks} (mark {_FOLDS} of each to know how well)"
        return f"learnt from {marks}; of marks held out, {self.right:.0%} are right (half each, by chance 50 %)"


def learn(collection: Collection, marks: Mapping[int, bool]) -> Learned:
    """Fit the classifier.

    Args:
        collection: the index.
        marks: True for ids to keep, False for those to reject.

    Raises:
        ValueError: nothing is kept, or nothing rejected.
    """
    num_keep = sum(marks.values())
    num_reject = len(marks) - num_keep
    if not num_keep or not num_reject:
        raise ValueError(
            f"the marks keep {num_keep} and reject {num_reject} clips of the index: a classifier needs some of both"
        )
    vectors_NC = collection.vectors(np.fromiter(marks, np.int64))
    is_kept_N = np.fromiter(marks.values(), bool)
    model = LogisticRegression(C=_STRENGTH, class_weight="balanced", max_iter=1000)
    right = None
    if min(num_keep, num_reject) >= _FOLDS:
        guessed_N = cross_val_predict(model, vectors_NC, is_kept_N, cv=StratifiedKFold(_FOLDS))
        right = float(np.mean([np.mean(guessed_N[is_kept_N]), np.mean(~guessed_N[~is_kept_N])]))
    model.fit(vectors_NC, is_kept_N)
    return Learned(model.coef_[0].astype(np.float32), float(model.intercept_[0]), num_keep, num_reject, right)


def scores(collection: Collection, learned: Learned) -> np.ndarray:
    """(N,) float32 score of every vector of the collection."""
    return np.concatenate([part_NC @ learned.weights for part_NC in collection.scan()]) + np.float32(learned.bias)


def first_of_recordings(order: np.ndarray, recordings: np.ndarray, count: int) -> np.ndarray:
    """Take the first of each recording from ordered ids, ``count`` at most."""
    _, first = np.unique(recordings[order], return_index=True)
    return order[np.sort(first)[:count]]
