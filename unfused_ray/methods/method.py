"""What the training loop asks of a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor, nn

from unfused_ray.config import Cut
from unfused_ray.methods.momentum import KeyQueue
from unfused_ray.models.encoder import AudioNTT2020


@dataclass
class BlockOutput:
    """What one block of clips gives: sums over its clips, so that blocks add up to global batches.

    Of a :class:`BatchMethod`, what a global batch gives, likewise as a sum over its clips.
    """

    loss: Tensor
    """Scalar, weighted sum over the clips; its gradient is what is trained on."""
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    """Further sums, detached, for the curves."""
    embeddings: Tensor | None = None
    """``(B, D)``, detached: what the clusterer's bank keeps of these clips, or whose effective rank is watched where
    there is none."""


class Method(nn.Module):
    """An encoder with a loss over augmented clips: a :class:`BlockMethod` or a :class:`BatchMethod`."""

    name: ClassVar[str]
    """As papers call it."""
    num_views: int
    """Augmented views of a clip."""
    labels_from: Literal["bank", "full_pass", "fixed", "none"]
    """Where an epoch's pseudo-labels come from: a clustering of the embeddings of the epoch before, or of a pass over
    all clips; or they were made before the run; or the method has none."""
    encoder: AudioNTT2020

    @property
    def export_cut(self) -> Cut:
        """Last layer of what is kept of the encoder; all of it, unless a method says otherwise."""
        return self.encoder.config.cut

    def load_encoder(self, tensors: Mapping[str, Tensor]) -> None:
        """Begin with these weights of the encoder, the rest being as it is: a warm start."""
        self.encoder.load_state_dict(tensors)

    def load_all(self, tensors: Mapping[str, Tensor]) -> None:
        """Begin with the weights of another run of this method, on other clips: a warm start.

        A queue stays as it is: the other run's holds keys of clips that are not there, and may be of another size.
        """
        queues = {name for name, module in self.named_modules() if isinstance(module, KeyQueue)}
        own = {name: value for name, value in self.state_dict().items() if name.rpartition(".")[0] in queues}
        self.load_state_dict({**tensors, **own})

    def embed(self, log_mel_BFT: Tensor) -> Tensor:
        """``(B, D)`` embeddings for the clusterer, without dropout or gradient, batch norm over this block.

        Asked for where labels are clustered, from a full pass at least.
        """
        raise NotImplementedError(f"{self.name} has nothing to cluster")

    def begin_epoch(self, prototypes: Sequence[np.ndarray]) -> None:
        """Take over the prototypes of the epoch's labels, one ``(K, D)`` array a head."""

    def after_step(self, batch: Mapping[str, Tensor]) -> None:
        """Move what follows the trained weights: an average of them, a queue of past clips. The same on all workers.

        Args:
            batch: of a :class:`BatchMethod`, what ``forward`` gave for the clips of the whole global batch, detached;
                empty otherwise.
        """


class BlockMethod(Method, ABC):
    """A method whose loss is a sum over clips: blocks are computed one after the other, whatever their number."""

    @abstractmethod
    def forward(self, views_VBFT: Tensor, weights_B: Tensor, labels_HB: Tensor) -> BlockOutput:
        """The loss of a block.

        Args:
            views_VBFT: normalised, augmented log-mels of ``num_views`` views.
            weights_B: 0 for a clip that must not count.
            labels_HB: int64 pseudo-labels of each head.
        """


class BatchMethod(Method, ABC):
    """A method that compares the clips of a global batch with each other, in-batch negatives or correlations.

    The loop puts together what ``forward`` gives for all blocks of all workers, in the plan's order, and asks for the
    loss of it. Gradients are exact for any number of workers; the graphs of a worker's blocks are held at once.
    """

    labels_from = "none"

    @abstractmethod
    def forward(self, views_VBFT: Tensor, weights_B: Tensor, labels_HB: Tensor) -> Mapping[str, Tensor]:
        """What the loss is made of: float32 tensors (B, …) by name, a row a clip, always the same names."""

    @abstractmethod
    def batch_loss(self, batch: Mapping[str, Tensor], weights_N: Tensor) -> BlockOutput:
        """The loss of a global batch, in float32 where the networks are in bfloat16, too.

        Args:
            batch: what ``forward`` gave, (N, …) each.
            weights_N: 0 for a clip that must not count, neither as itself nor as another's negative.
        """
