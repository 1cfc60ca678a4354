"""Labels that were made before the run began, and stay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unfused_ray import storage
from unfused_ray.clustering.assignment import Assignment, read_assignment, write_assignment
from unfused_ray.clustering.clusterer import ASSIGNMENT
from unfused_ray.data.stream.plan import Pass


class Fixed:
    """A :class:`LabelSource` of one assignment, which every checkpoint takes a copy of along.

    Args:
        folder: written by :func:`write_assignment`.
    """

    are_renewed = False
    collects_in_training = False

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._assignment: Assignment | None = None

    def passes(self, epoch: int, is_empty: bool) -> Sequence[Pass]:
        """None: nothing is embedded."""
        return ()

    def restore(self, folder: str | None, epoch: int) -> None:
        """Read the labels, from a checkpoint if there is one."""
        self._assignment = read_assignment(storage.join(folder, ASSIGNMENT) if folder else self._folder)

    def push(self, clip_ids: np.ndarray, embeddings: np.ndarray) -> None:
        """Refuse embeddings."""
        raise RuntimeError("nothing is clustered in a run whose labels are fixed")

    def flush(self) -> None:
        """Return at once: nothing is pushed."""

    def labels(self, epoch: int) -> Assignment:
        """The same assignment in all epochs."""
        if self._assignment is None:
            raise RuntimeError("the labels have not been read: call restore() first")
        return self._assignment

    def save(self, folder: str) -> None:
        """Write a copy of the labels."""
        write_assignment(storage.join(folder, ASSIGNMENT), self.labels(0))

    def forget(self, before_epoch: int) -> None:
        """Keep the one assignment."""
