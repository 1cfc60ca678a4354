"""Detects gradients that are not finite, a step late if that saves waiting for the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from unfused_ray.runs.checkpoints import Position
from unfused_ray.training.worker.device import to_host


@dataclass(frozen=True)
class _Step:
    position: Position
    clip_ids: np.ndarray
    norm: Callable[[], Tensor]


class FiniteCheck:
    """Keeps the norms of the newest gradients while they are copied from the device."""

    def __init__(self) -> None:
        self._steps: deque[_Step] = deque()

    def note(self, module: nn.Module, position: Position, clip_ids: Sequence[np.ndarray]) -> None:
        """Start to copy the norm of a module's gradient.

        Args:
            module: module whose gradient is that of a whole global batch.
            position: position before the step of the gradient.
            clip_ids: clip_ids of this worker's blocks of the batch.
        """
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        norm = to_host(torch.nn.utils.get_total_norm(gradients))
        self._steps.append(_Step(position, np.concatenate(clip_ids), norm))

    def first_not_finite(self, late: int) -> tuple[Position, np.ndarray] | None:
        """Return position and this worker's clips of the first gradient that is not finite; None if all are finite.

        All workers hold the same gradients, so all of them find it at the same step.

        Args:
            late: number of newest gradients that are not checked yet; 0 waits for all.
        """
        while len(self._steps) > late:
            step = self._steps.popleft()
            if not torch.isfinite(step.norm()):
                return step.position, step.clip_ids
        return None
