"""The interface between the training loop and the pseudo-labels of a run; a method without labels has no source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from unfused_ray.clustering.assignment import Assignment
from unfused_ray.data.stream.plan import Pass


class LabelSource(ABC):
    """One worker's access to the pseudo-labels of a run. If a call has failed, :meth:`restore` begins again."""

    are_renewed = False
    """True if each epoch has labels of its own, whose health shows a collapse."""
    collects_in_training = False
    """True if the embeddings that training computes must be pushed."""

    def passes(self, epoch: int, is_empty: bool) -> Sequence[Pass]:
        """Return the passes over every clip whose embeddings must be pushed before the labels of an epoch.

        Args:
            epoch: epoch that begins.
            is_empty: True if no embedding has been pushed or restored yet.
        """
        return ()

    @abstractmethod
    def restore(self, folder: str | None, epoch: int) -> None:
        """Begin, or begin again. Every worker of a group calls it first, with the same arguments.

        Args:
            folder: folder written by :meth:`save`; None to begin without a state.
            epoch: the epoch that is about to begin, or that the state was saved in the middle of.

        Raises:
            ValueError: the folder is of another run or epoch.
        """

    def push(self, clip_ids: np.ndarray, embeddings: np.ndarray) -> None:
        """Receive embeddings ``(n, D)`` of clips ``(n,)`` int64, each clip at most once between two assignments."""
        raise RuntimeError("nothing is clustered in a run whose labels are fixed")

    def flush(self) -> None:  # noqa: B027 - only what is pushed has to arrive
        """Wait until everything pushed has arrived."""

    @abstractmethod
    def labels(self, epoch: int) -> Assignment:
        """Return the assignment that ``epoch`` trains on. Every worker calls it; further calls give the same result.

        Args:
            epoch: epoch that is about to begin, or into which a state was restored.

        Raises:
            RuntimeError: not all pushed embeddings have arrived, or a clip was never pushed.
        """

    @abstractmethod
    def save(self, folder: str) -> None:
        """Write the state and the current assignment. One worker calls it, after all have flushed."""

    def forget(self, before_epoch: int) -> None:  # noqa: B027 - fixed labels stay
        """Delete the written assignments of all epochs before this one."""
