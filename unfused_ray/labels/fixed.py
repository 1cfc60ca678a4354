"""Labels that were made before the run began, and do not change."""

from __future__ import annotations

from unfused_ray import storage
from unfused_ray.clustering.assignment import Assignment, read_assignment, write_assignment
from unfused_ray.clustering.clusterer import ASSIGNMENT
from unfused_ray.labels.source import LabelSource


class Fixed(LabelSource):
    """One assignment for all epochs; every checkpoint contains a copy of it.

    Args:
        folder: folder written by :func:`write_assignment`.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._assignment: Assignment | None = None

    def restore(self, folder: str | None, epoch: int) -> None:
        """Read the labels, from a checkpoint if there is one."""
        self._assignment = read_assignment(storage.join(folder, ASSIGNMENT) if folder else self._folder)

    def labels(self, epoch: int) -> Assignment:
        """Return the same assignment in all epochs."""
        if self._assignment is None:
            raise RuntimeError("the labels have not been read: call restore() first")
        return self._assignment

    def save(self, folder: str) -> None:
        """Write a copy of the labels."""
        write_assignment(storage.join(folder, ASSIGNMENT), self.labels(0))
