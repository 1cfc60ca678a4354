"""Labels that are clustered anew each epoch, from the embeddings of the epoch before or of a pass over all clips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unfused_ray.clustering.assignment import Assignment
from unfused_ray.clustering.clusterer import Clusterer
from unfused_ray.data.stream.plan import Pass
from unfused_ray.labels.source import LabelSource
from unfused_ray.methods.method import ClusteringRequest


class Clustered(LabelSource):
    """Labels of a clusterer, in this process or in the assignment actor.

    Args:
        request: clustering that the method asks for.
        clusterer: holds the embeddings of all clips.
        rank: rank of this worker.
    """

    are_renewed = True

    def __init__(self, request: ClusteringRequest, clusterer: Clusterer, rank: int) -> None:
        self._request, self._clusterer, self._rank = request, clusterer, rank
        self._num_pushed = 0
        self.collects_in_training = not request.full_pass

    def passes(self, epoch: int, is_empty: bool) -> Sequence[Pass]:
        """Return one pass before every epoch, or before the first alone."""
        return passes_before(self._request, epoch, is_empty)

    def restore(self, folder: str | None, epoch: int) -> None:
        """Restore the clusterer."""
        self._num_pushed = 0
        self._clusterer.restore(folder, epoch)

    def push(self, clip_ids: np.ndarray, embeddings: np.ndarray) -> None:
        """Push embeddings to the clusterer, and count them."""
        self._clusterer.push(clip_ids, embeddings)
        self._num_pushed += len(clip_ids)

    def flush(self) -> None:
        """Wait until everything pushed has arrived."""
        self._clusterer.flush()

    def labels(self, epoch: int) -> Assignment:
        """Wait for all workers, check that all embeddings have arrived, and cluster them."""
        pushed, self._num_pushed = self._num_pushed, 0
        return self._clusterer.labels(epoch, self._rank, pushed)

    def save(self, folder: str) -> None:
        """Write the bank and the current assignment."""
        self._clusterer.save(folder)

    def forget(self, before_epoch: int) -> None:
        """Delete older assignments."""
        self._clusterer.forget(before_epoch)


def passes_before(request: ClusteringRequest | None, epoch: int, is_empty: bool) -> Sequence[Pass]:
    """Return the passes over every clip that a method needs before an epoch's labels; none if it clusters nothing."""
    return (Pass("embed", epoch),) if request is not None and (request.full_pass or is_empty) else ()
