"""The interface between the training loop and a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from unfused_ray.config import Cut
from unfused_ray.methods.momentum import KeyQueue
from unfused_ray.models.encoder import AudioNTT2020


@dataclass
class BlockOutput:
    """Loss and terms of a block of clips, as sums over its clips, so that blocks add up to global batches.

    For a :class:`BatchMethod` they are those of a global batch, also as sums over its clips.
    """

    loss: Tensor
    """Scalar, weighted sum over the clips; training descends its gradient."""
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    """Further detached sums, for the curves: those that the method's ``terms`` declare."""
    embeddings: Tensor | None = None
    """``(B, D)``, detached: the embeddings that are clustered or, if none are, whose effective rank is watched."""


@dataclass(frozen=True)
class Term:
    """The name of one of ``BlockOutput.terms`` in pictures and pages."""

    heading: str
    note: str
    """Help for readers: formula or unit, and its bounds."""


@dataclass(frozen=True)
class ClusteringRequest:
    """A method's request for a clustering of embeddings before each epoch."""

    dim: int
    """D, size of an embedding."""
    num_clusters: tuple[int, ...]
    """K, number of clusters, of each head."""
    iterations: int
    """Number of Lloyd iterations of an assignment."""
    full_pass: bool
    """True to embed every clip before each epoch; False to cluster the embeddings computed in the epoch before."""
    num_shards: int
    """Number of processes of a worker group that hold the embeddings."""
    gpus_per_shard: float = 0.0
    """Number of GPUs that each of these processes reserves; 0 clusters on CPUs."""


class Method(nn.Module):
    """An encoder with a loss over augmented clips: a :class:`BlockMethod` or a :class:`BatchMethod`."""

    name: ClassVar[str]
    """Name of the method in papers."""
    terms: ClassVar[Mapping[str, Term]] = {}
    """Heading and note of each of ``BlockOutput.terms``."""
    num_views: int
    """Number of augmented views of a clip."""
    encoder: AudioNTT2020

    @classmethod
    def clustering(cls, config: Any) -> ClusteringRequest | None:
        """Return the clustering that the method's labels come from; None if it has no labels, or fixed ones.

        Args:
            config: settings of the method.
        """
        return None

    @property
    def export_cut(self) -> Cut:
        """Last layer of the encoder that is exported; the whole encoder, unless a method overrides it."""
        return self.encoder.config.cut

    def load_encoder(self, tensors: Mapping[str, Tensor]) -> None:
        """Load these weights into the encoder and its averages, and leave the rest unchanged: a warm start."""
        for module in self.modules():
            if isinstance(module, AudioNTT2020):
                module.load_state_dict(tensors)

    def load_all(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the weights of another run of this method, on other clips: a warm start.

        A queue is left unchanged: the other run's queue holds keys of clips that this run lacks, and may have another
        size.
        """
        queues = {name for name, module in self.named_modules() if isinstance(module, KeyQueue)}
        own = {name: value for name, value in self.state_dict().items() if name.rpartition(".")[0] in queues}
        self.load_state_dict({**tensors, **own})

    def embed(self, log_mel_BFT: Tensor) -> Tensor:
        """Return ``(B, D)`` embeddings to cluster, without dropout or gradient, with batch norm over this block.

        Called only if :meth:`clustering` asks for it.
        """
        raise NotImplementedError(f"{self.name} has nothing to cluster")

    def begin_epoch(self, prototypes: Sequence[np.ndarray]) -> None:
        """Set the prototypes of the epoch's labels, one ``(K, D)`` array per head."""

    def after_step(self, batch: Mapping[str, Tensor]) -> None:
        """Update the state that follows the trained weights, such as their average; it is equal on all workers.

        Args:
            batch: the output of a :class:`BatchMethod`'s ``forward`` for the clips of the whole global batch, detached;
                empty for a :class:`BlockMethod`.
        """


class BlockMethod(Method, ABC):
    """A method whose loss is a sum over clips, so that its blocks are computed one after the other."""

    @abstractmethod
    def forward(self, views_VBFT: Tensor, weights_B: Tensor, labels_HB: Tensor) -> BlockOutput:
        """Compute the loss of a block.

        Args:
            views_VBFT: normalised, augmented log-mels of ``num_views`` views.
            weights_B: 0 for a clip that must not count.
            labels_HB: int64 pseudo-labels of each head; H is 0 in a run without labels.
        """


class BatchMethod(Method, ABC):
    """A method that compares the clips of a global batch with each other, by in-batch negatives or correlations.

    The loop joins the outputs of ``forward`` for all blocks of all workers, in the plan's order, and asks for their
    loss. Gradients are exact for any number of workers. A worker holds the graphs of all of its blocks at once.
    """

    @abstractmethod
    def forward(self, views_VBFT: Tensor, weights_B: Tensor, labels_HB: Tensor) -> Mapping[str, Tensor]:
        """Return the inputs of the loss: float32 tensors (B, …) by name, one row per clip, always with the same
        names."""

    @abstractmethod
    def batch_loss(self, batch: Mapping[str, Tensor], weights_N: Tensor) -> BlockOutput:
        """Compute the loss of a global batch, in float32 even if the networks are in bfloat16.

        Args:
            batch: the outputs of ``forward``, (N, …) each.
            weights_N: 0 for a clip that must not count, neither as itself nor as another's negative.
        """
