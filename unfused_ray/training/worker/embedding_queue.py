"""Embeddings on their way from a worker's device to the source of its labels."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from torch import Tensor

from unfused_ray.labels.source import LabelSource
from unfused_ray.training.worker.device import to_host


class EmbeddingQueue:
    """Pushes embeddings a little late, so that nobody waits for the device.

    Args:
        labels: label source that receives the embeddings.
        delay: number of blocks that stay in the queue until later ones come.
    """

    def __init__(self, labels: LabelSource, delay: int) -> None:
        self._labels = labels
        self._delay = delay
        self._waiting: deque[tuple[np.ndarray, Callable[[], Tensor]]] = deque()

    def push(self, clip_ids: np.ndarray, embeddings: Tensor) -> None:
        """Queue embeddings ``(b, D)`` of clips ``(b,)``; those of id -1 are left out."""
        self._waiting.append((clip_ids, to_host(embeddings.float())))
        if len(self._waiting) > self._delay:
            self._push_oldest()

    def flush(self) -> None:
        """Push everything in the queue, and wait until it has arrived."""
        while self._waiting:
            self._push_oldest()
        self._labels.flush()

    def _push_oldest(self) -> None:
        clip_ids, embeddings = self._waiting.popleft()
        real = clip_ids >= 0
        self._labels.push(clip_ids[real], embeddings().numpy()[real])
