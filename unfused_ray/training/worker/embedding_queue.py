"""Embeddings on their way from a worker's device to the source of its labels."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from unfused_ray.labels.source import LabelSource
from unfused_ray.training.worker.device import to_host

if TYPE_CHECKING:
    from unfused_ray.data.stream.read import Block


class EmbeddingQueue:
    """Pushes embeddings a little late, so that nobody waits for the device.

    Args:
        labels: label source that receives the embeddings.
        delay: number of blocks that stay in the queue until later ones come.
    """

    def __init__(self, labels: LabelSource, delay: int) -> None:
        self._labels = labels
        self._delay = delay
        self._waiting: deque[tuple[np.ndarray, np.ndarray, Callable[[], Tensor]]] = deque()

    def push(self, block: Block, embeddings: Tensor) -> None:
        """Queue the embeddings ``(b, D)`` of a block.

        Those of clip_id -1 are left out. That of a damaged clip, which is silence, is replaced by zero: it moves no
        centroid.
        """
        self._waiting.append((block.clip_ids, block.weights, to_host(embeddings.float())))
        if len(self._waiting) > self._delay:
            self._push_oldest()

    def flush(self) -> None:
        """Push everything in the queue, and wait until it has arrived."""
        while self._waiting:
            self._push_oldest()
        self._labels.flush()

    def _push_oldest(self) -> None:
        clip_ids, weights, embeddings = self._waiting.popleft()
        real = clip_ids >= 0
        self._labels.push(clip_ids[real], (embeddings().numpy() * weights[:, None])[real])
