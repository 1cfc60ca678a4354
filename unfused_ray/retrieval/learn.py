"""Learns from marks: a linear classifier over the whole collection, and the clips about which it is least sure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from unfused_ray.retrieval.collection import Collection

_STRENGTH = 10.0
"""C of the logistic regression on unit vectors."""
_BACKGROUND = 300
_BACKGROUND_WEIGHT = 0.5
"""Total weight of unmarked clips, drawn by chance and counted as rejected, relative to the kept clips.

Without them a few marks say nothing about the rest of a collection. After the twelve clips nearest to a clip were
marked, 57 of the next hundred were of its class without them and 77 with them; of the clips that are nearest next, 53
are (the demo's collection, 15 classes, four clips each).
"""
_FOLDS = 5


@dataclass(frozen=True)
class Learned:
    """A linear classifier of vectors in the space; scores above 0 mean keep."""

    weights: np.ndarray
    """(C,) float32."""
    bias: float
    num_keep: int
    num_reject: int
    right: float | None
    """Share of marks that classifiers trained on other groups' marks get right, averaged over kept and rejected; None
    if there are too few groups."""

    @property
    def text(self) -> str:
        """The number of marks, and how well they are learnt, in words."""
        marks = f"learnt from {self.num_keep} kept and {self.num_reject} rejected clips"
        if self.right is None:
            return f"{marks} (mark {_FOLDS} recordings or groups of each to see the accuracy)"
        return f"{marks}; {self.right:.0%} of marks in held-out groups are predicted correctly (chance: 50 %)"


def learn(collection: Collection, marks: Mapping[int, bool]) -> Learned:
    """Fit the classifier; equal marks give the same classifier.

    Args:
        collection: the index.
        marks: True for ids to keep, False for those to reject.

    Raises:
        ValueError: no clip is marked to be kept, or there is nothing to tell kept clips from.
    """
    num_keep = sum(marks.values())
    num_reject = len(marks) - num_keep
    if not num_keep:
        raise ValueError(f"the marks keep none of the clips of the index, and reject {num_reject}: mark some to keep")
    ids_M, is_kept_M = np.fromiter(marks, np.int64), np.fromiter(marks.values(), bool)
    recordings = collection.clips.recordings
    unmarked = np.flatnonzero(~np.isin(recordings, recordings[ids_M]))
    drawn = np.random.default_rng(0).permutation(unmarked)[:_BACKGROUND]
    if not num_reject and not len(drawn):
        raise ValueError("every recording of the index is marked to be kept: there is nothing to learn")
    vectors_MC, background_BC = collection.vectors(ids_M), collection.vectors(drawn)
    right, groups_M = None, collection.clips.groups[ids_M]
    if min(len(np.unique(groups_M[is_kept_M])), len(np.unique(groups_M[~is_kept_M]))) >= _FOLDS:
        guessed_M = np.zeros(len(ids_M), bool)
        # Windows of one recording, and recordings of one group, resemble each other, so folds hold out whole groups.
        for fitting, held in StratifiedGroupKFold(_FOLDS).split(vectors_MC, is_kept_M, groups_M):
            model = _fit(vectors_MC[fitting], is_kept_M[fitting], background_BC)
            guessed_M[held] = model.predict(vectors_MC[held])
        right = float((guessed_M[is_kept_M].mean() + (~guessed_M[~is_kept_M]).mean()) / 2)
    model = _fit(vectors_MC, is_kept_M, background_BC)
    return Learned(model.coef_[0].astype(np.float32), float(model.intercept_[0]), num_keep, num_reject, right)


def _fit(vectors_MC: np.ndarray, is_kept_M: np.ndarray, background_BC: np.ndarray) -> LogisticRegression:
    """Fit marks, with equal weights of kept and rejected ones, and unmarked clips as rejected ones."""
    total = len(is_kept_M) / 2
    weights_M = total / np.where(is_kept_M, is_kept_M.sum(), (~is_kept_M).sum())
    weights_B = np.full(len(background_BC), total * _BACKGROUND_WEIGHT / max(len(background_BC), 1))
    classes = np.concatenate([is_kept_M, np.zeros(len(background_BC), bool)])
    model = LogisticRegression(C=_STRENGTH, max_iter=1000)
    return model.fit(np.concatenate([vectors_MC, background_BC]), classes, np.concatenate([weights_M, weights_B]))


def scores(collection: Collection, learned: Learned) -> np.ndarray:
    """Return the (N,) float32 score of every vector of the collection."""
    return np.concatenate([part_NC @ learned.weights for part_NC in collection.scan()]) + np.float32(learned.bias)


def first_of_recordings(order: np.ndarray, recordings: np.ndarray, count: int) -> np.ndarray:
    """Take the first id of each recording from ordered ids, at most ``count``."""
    _, first = np.unique(recordings[order], return_index=True)
    return order[np.sort(first)[:count]]
