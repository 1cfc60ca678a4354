"""Embeddings on their way from a worker to the clusterer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from torch import Tensor

from unfused_ray.clustering.clusterer import Clusterer
from unfused_ray.training.worker.device import to_host


class Outbox:
    """Sends what a worker has embedded a little late, so that the device is not waited for.

    Args:
        clusterer: who gets it.
        delay: blocks that stay here until later ones come.
    """

    def __init__(self, clusterer: Clusterer, delay: int) -> None:
        self._clusterer = clusterer
        self._delay = delay
        self._waiting: deque[tuple[np.ndarray, Callable[[], Tensor]]] = deque()
        self._sent = 0

    def push(self, clip_ids: np.ndarray, embeddings: Tensor) -> None:
        """Take embeddings ``(b, D)`` of clips ``(b,)``; those of id -1 are left out."""
        self._waiting.append((clip_ids, to_host(embeddings.float())))
        if len(self._waiting) > self._delay:
            self._send_one()

    def flush(self) -> None:
        """Send all there is, and wait until it has arrived."""
        while self._waiting:
            self._send_one()
        self._clusterer.flush()

    def drain(self) -> int:
        """Flush; returns how many embeddings were sent since the last time."""
        self.flush()
        sent, self._sent = self._sent, 0
        return sent

    def _send_one(self) -> None:
        clip_ids, embeddings = self._waiting.popleft()
        real = clip_ids >= 0
        self._clusterer.push(clip_ids[real], embeddings().numpy()[real])
        self._sent += int(real.sum())
