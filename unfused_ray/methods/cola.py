"""COLA: two crops of one clip are a positive pair; the crops of all other clips of the batch are negatives.

The similarity is bilinear, ``anchor · W · positive``, and each anchor is classified among all positives of the batch.

Source: COLA, arXiv 2010.10915 sec. 2 and 3.1. There, crops are not augmented. Here both crops go through the
augmentation that all methods share; without it, two crops of a clip no longer than a crop would be equal.

Shapes: B clips of a block, N of a global batch, D projection size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unfused_ray.config import ColaConfig, EncoderConfig
from unfused_ray.methods.method import BatchMethod, BlockOutput, Term
from unfused_ray.models.encoder import AudioNTT2020


class Cola(BatchMethod):
    """The encoder, a projection (linear, layer norm, tanh), and the matrix of the bilinear similarity."""

    name = "COLA"
    terms: ClassVar[Mapping[str, Term]] = {
        "agreement": Term("agreement", "share of clips whose positive is the most similar")
    }
    num_views = 2

    def __init__(self, config: ColaConfig, encoder: EncoderConfig, num_mels: int) -> None:
        super().__init__()
        self.encoder = AudioNTT2020(encoder, num_mels)
        dim = config.projection_dim
        self.projector = nn.Sequential(nn.Linear(self.encoder.dim, dim), nn.LayerNorm(dim), nn.Tanh())
        self.similarity = nn.Linear(dim, dim, bias=False)

    def forward(self, views_VBFT: Tensor, weights_B: Tensor, labels_HB: Tensor) -> Mapping[str, Tensor]:
        """Return the projections of the anchors and those of the positives times the matrix: (B, D) each."""
        anchor_BD, positive_BD = self.projector(self.encoder(views_VBFT.flatten(0, 1))).chunk(2)
        return {"anchor": anchor_BD.float(), "positive": self.similarity(positive_BD).float()}

    def batch_loss(self, batch: Mapping[str, Tensor], weights_N: Tensor) -> BlockOutput:
        """Compute the cross entropy of every anchor among the positives of the global batch."""
        loss_N, hits_N = bilinear_loss(batch["anchor"], batch["positive"], weights_N)
        return BlockOutput(
            (loss_N * weights_N).sum(), {"agreement": (hits_N * weights_N).sum()}, embeddings=batch["anchor"].detach()
        )


def bilinear_loss(anchor_ND: Tensor, positive_ND: Tensor, weights_N: Tensor) -> tuple[Tensor, Tensor]:
    """Return each anchor's loss and if its positive is the most similar, (N,) each; clips of weight 0 are no
    negatives."""
    logits_NN = anchor_ND @ positive_ND.T
    targets_N = torch.arange(len(logits_NN), device=logits_NN.device)
    own_NN = torch.eye(len(logits_NN), dtype=torch.bool, device=logits_NN.device)  # keeps rows without weight finite
    logits_NN = logits_NN.masked_fill((weights_N == 0) & ~own_NN, -torch.inf)
    loss_N = F.cross_entropy(logits_NN, targets_N, reduction="none")
    return loss_N, (logits_NN.argmax(1) == targets_N).float()
