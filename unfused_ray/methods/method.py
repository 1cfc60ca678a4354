"""What the training loop asks of a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor, nn

from unfused_ray.config import Cut
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

    name: ClassVar[str]
    """As papers call it."""
    num_views: int
    """Augmented views of a clip."""
    labels_from: Literal["bank", "full_pass", "fixed"]
    """Where an epoch's pseudo-labels come from: a clustering of the embeddings of the epoch before, or of a pass over
    all clips; or they were made before the run."""
    encoder: AudioNTT2020

    @property
    def export_cut(self) -> Cut:
        """Last layer of what is kept of the encoder; all of it, unless a method says otherwise."""
        return self.encoder.config.cut

    @abstractmethod
    def forward(self, views_VBFT: Tensor, weights_B: Tensor, labels_HB: Tensor) -> BlockOutput:
        """The loss of a block.

        Args:
            views_VBFT: normalised, augmented log-mels of ``num_views`` views.
            weights_B: 0 for a clip that must not count.
            labels_HB: int64 pseudo-labels of each head.
        """

    def embed(self, log_mel_BFT: Tensor) -> Tensor:
        """``(B, D)`` embeddings for the clusterer, without dropout or gradient, batch norm over this block.

        Asked for where labels are clustered, from a full pass at least.
        """
        raise NotImplementedError(f"{self.name} has nothing to cluster")

    def begin_epoch(self, prototypes: Sequence[np.ndarray]) -> None:
        """Take over the prototypes of the epoch's labels, one ``(K, D)`` array a head."""
