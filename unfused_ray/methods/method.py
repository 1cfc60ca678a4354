"""What the training loop asks of a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn

from unfused_ray.models.encoder import AudioNTT2020


@dataclass
class BlockOutput:
    """What one block of clips gives: sums over its clips, so that blocks add up to global batches."""

    loss: Tensor
    """Scalar, weighted sum over the clips; its gradient is what is trained on."""
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    """Further sums, detached, for the curves."""
    embeddings: Tensor | None = None
    """``(B, D)``, detached: what the clusterer's bank keeps of these clips."""


class Method(nn.Module, ABC):
    """An encoder with a loss over a block of augmented clips."""

    num_views: int
    """Augmented views of a clip."""
    encoder: AudioNTT2020

    @abstractmethod
    def forward(self, views_VBFT: Tensor, weights_B: Tensor, labels_HB: Tensor) -> BlockOutput:
        """The loss of a block.

        Args:
            views_VBFT: normalised, augmented log-mels of ``num_views`` views.
            weights_B: 0 for a clip that must not count.
            labels_HB: int64 pseudo-labels of each head.
        """

    @abstractmethod
    def embed(self, log_mel_BFT: Tensor) -> Tensor:
        """``(B, D)`` embeddings for the clusterer, without dropout or gradient, batch norm over this block."""

    @abstractmethod
    def begin_epoch(self, prototypes: Sequence[np.ndarray]) -> None:
        """Take over the prototypes of a new clustering, one ``(K, D)`` array a head."""
