"""DECAR-v2: clips are classified into their clusters by a classifier whose weights are the centroids.

DECAR (arXiv 2110.08895) alternates k-means and classification, with a new classifier each epoch. DECAR-v2 sets the
prototype weights to the cluster centroids instead, as DeepCluster-v2 does (arXiv 2006.09882, appendix E): the
prototypes are not trained by gradient, and the embeddings clustered are those computed in the epoch before.

Shapes: V views, B clips, F mel bands, T frames, H heads, K clusters, D projection size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from unfused_ray.config import DecarConfig, EncoderConfig
from unfused_ray.methods.method import BlockMethod, BlockOutput, ClusteringRequest, Term
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.models.heads import ProjectionHead
from unfused_ray.models.kernels import max_mean


class DecarV2(BlockMethod):
    """The encoder, a projection head, and the prototypes of the current epoch."""

    name = "DECAR-v2"
    terms: ClassVar[Mapping[str, Term]] = {
        "agreement": Term("agreement", "share of views nearest to their pseudo-label")
    }
    num_views = 2

    def __init__(self, config: DecarConfig, encoder: EncoderConfig, num_mels: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = AudioNTT2020(encoder, num_mels)
        self.projector = ProjectionHead(self.encoder.dim, config.projection_hidden, config.projection_dim)
        # Not part of the state: a checkpoint refers to the assignment that the prototypes came with.
        self._prototypes_KD: list[Tensor] = []

    @classmethod
    def clustering(cls, config: DecarConfig) -> ClusteringRequest:
        """Request k-means of the projections."""
        return ClusteringRequest(
            dim=config.projection_dim,
            num_clusters=config.num_clusters,
            iterations=config.kmeans_iterations,
            full_pass=config.labels_from == "full_pass",
            num_shards=config.assignment_shards,
            gpus_per_shard=config.assignment_gpus,
        )

    def begin_epoch(self, prototypes: Sequence[np.ndarray]) -> None:
        """Set the prototypes to the centroids of the new clustering."""
        device = next(self.parameters()).device
        self._prototypes_KD = [torch.tensor(head, device=device) for head in prototypes]

    def forward(self, views_VBFT: Tensor, weights_B: Tensor, labels_HB: Tensor) -> BlockOutput:
        """Compute the cross entropy of every view's projection against the pseudo-labels of every head."""
        num_views, batch = views_VBFT.shape[:2]
        hidden = self.encoder.hidden(self.encoder.blocks(views_VBFT.flatten(0, 1))[-1])
        z_VBD = self.projector(max_mean(self.encoder.frames(hidden))).unflatten(0, (num_views, batch))
        loss_B, agreement_B = prototype_loss(z_VBD, self._prototypes_KD, labels_HB, self.config.temperature)
        if self.config.bank_embedding == "mean_of_views":
            embeddings = F.normalize(z_VBD.detach().float().mean(0), dim=-1)
        else:
            with torch.no_grad():
                embeddings = self.projector(max_mean(self.encoder.frames(hidden[:batch], dropout=False)))
        return BlockOutput(
            loss=(loss_B * weights_B).sum(),
            terms={"agreement": (agreement_B * weights_B).sum().detach()},
            embeddings=embeddings,
        )

    @torch.no_grad()
    def embed(self, log_mel_BFT: Tensor) -> Tensor:
        """Return projections without dropout: ``(B, D)``, L2-normalised."""
        hidden = self.encoder.hidden(self.encoder.blocks(log_mel_BFT)[-1])
        return self.projector(max_mean(self.encoder.frames(hidden, dropout=False)))


def prototype_loss(
    z_VBD: Tensor, prototypes_KD: Sequence[Tensor], labels_HB: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Compute the cross entropy of ``z · prototypes / temperature`` with the labels, averaged over views and heads.

    Args:
        z_VBD: L2-normalised projections.
        prototypes_KD: L2-normalised prototypes, one tensor per head.
        labels_HB: int64 pseudo-labels.
        temperature: temperature of the softmax.

    Returns:
        Loss of each clip ``(B,)``, and the share of views and heads whose nearest prototype is the label ``(B,)``.
    """
    losses, agreements = [], []
    for prototypes, labels_B in zip(prototypes_KD, labels_HB, strict=True):
        for z_BD in z_VBD:
            with torch.autocast(z_BD.device.type, enabled=False):  # bfloat16 would round by a third of a per cent
                logits_BK = z_BD.float() @ prototypes.T / temperature
            losses.append(F.cross_entropy(logits_BK, labels_B, reduction="none"))
            agreements.append((logits_BK.argmax(1) == labels_B).float())
    return torch.stack(losses).mean(0), torch.stack(agreements).mean(0)
