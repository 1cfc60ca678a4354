"""Sums over an epoch, kept in checkpoints, so that an interrupted epoch still has the metrics of the whole epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from unfused_ray.data.stream.read import Block

_COUNTS = ("clips", "damaged_clips", "unlabelled_clips")


@dataclass
class EpochSums:
    """Sums over the clips that this worker has trained on in an epoch.

    A checkpoint in mid-epoch keeps the sums of all workers; rank 0 continues from them.
    """

    values: dict[str, Tensor | float] = field(default_factory=dict)
    """Loss and terms of a method, the number of ``clips``, and of those that do not count: ``damaged_clips``,
    ``unlabelled_clips``."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds by purpose."""

    def add(self, block: Block, values: Mapping[str, Tensor], labels: Sequence[np.ndarray] = ()) -> None:
        """Add the clips of a block, and a method's values for it. Nothing waits for the device.

        Args:
            block: block of the clips.
            values: sums over these clips.
            labels: labels of all clips, for each head; a clip that lacks a label in any head does not count.
        """
        self.add_values(values)
        is_damaged = block.weights == 0
        is_unlabelled = np.any([head[block.clip_ids] < 0 for head in labels], axis=0)
        self._add("clips", len(block.clip_ids))
        self._add("damaged_clips", float(is_damaged.sum()))
        self._add("unlabelled_clips", float((is_unlabelled & ~is_damaged).sum()))

    def add_values(self, values: Mapping[str, Tensor]) -> None:
        """Add sums over clips that are counted elsewhere."""
        for name, value in values.items():
            self._add(name, value)

    def spend(self, purpose: str, seconds: float) -> None:
        """Add to the seconds of a purpose."""
        self.seconds[purpose] = self.seconds.get(purpose, 0.0) + seconds

    def totals(self, device: torch.device, all_reduce: Callable[[Tensor], object] | None) -> dict[str, float]:
        """Return the values added up over all workers, which call it together."""
        names = sorted(self.values)
        totals = torch.stack([torch.as_tensor(self.values[n], dtype=torch.float64, device=device) for n in names])
        if all_reduce is not None:
            all_reduce(totals)
        return dict(zip(names, totals.tolist(), strict=True))

    def _add(self, name: str, value: Tensor | float) -> None:
        self.values[name] = self.values.get(name, 0.0) + value


def means(values: Mapping[str, Tensor | float]) -> dict[str, Tensor | float]:
    """Return the means over the clips that count, of all values except the counts."""
    unlabelled = values.get("unlabelled_clips", 0.0)  # older checkpoints do not have it
    clips = max(float(values["clips"]) - float(values["damaged_clips"]) - float(unlabelled), 1.0)
    return {name: value / clips for name, value in values.items() if name not in _COUNTS}
