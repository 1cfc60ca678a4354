"""DeLoRes-S: two views of a clip agree in every feature, and no two features are redundant.

The cross-correlation matrix C of the features of both views, over the clips of a global batch, is pulled towards the
identity (Barlow Twins)::

    L = Σ_i (1 - C_ii)² + λ Σ_i Σ_{j≠i} C_ij²

Source: DeLoRes, arXiv 2203.13628; doi 10.1109/JSTSP.2022.3202093; Barlow Twins, arXiv 2103.03230 sec. 2.1. The authors'
codes differ in λ: :class:`unfused_ray.config.DeloresSConfig`.

Shapes: V views, B clips of a block, N of a global batch, F mel bands, T frames, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from unfused_ray.config import DeloresSConfig, EncoderConfig
from unfused_ray.methods.method import BatchMethod, BlockOutput, Term
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.models.heads import DecorrelationHead


class DeloresS(BatchMethod):
    """The encoder, and the head whose features are decorrelated."""

    name = "DeLoRes-S"
    terms: ClassVar[Mapping[str, Term]] = {
        "invariance": Term("invariance", "Σ (1 - C_ii)² of the views' correlations; 0 is equal views"),
        "redundancy": Term("redundancy", "Σ C_ij², j ≠ i, of the views' correlations; 0 is no redundancy"),
    }
    num_views = 2

    def __init__(self, config: DeloresSConfig, encoder: EncoderConfig, num_mels: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = AudioNTT2020(encoder, num_mels)
        self.head = DecorrelationHead(self.encoder.dim, config.decorrelation_dim)

    def forward(self, views_VBFT: Tensor, weights_B: Tensor, labels_HB: Tensor) -> Mapping[str, Tensor]:
        """Return the features of both views: (B, D) each."""
        first_BD, second_BD = self.head(self.encoder(views_VBFT.flatten(0, 1))).chunk(2)
        return {"first": first_BD, "second": second_BD}

    def batch_loss(self, batch: Mapping[str, Tensor], weights_N: Tensor) -> BlockOutput:
        """Compute the loss above, once for each clip that counts, and its two sums."""
        invariance, redundancy = correlation_sums(batch["first"], batch["second"], weights_N)
        num_clips = weights_N.sum()
        loss = (invariance + self.config.off_diagonal * redundancy) * num_clips
        terms = {"invariance": invariance.detach() * num_clips, "redundancy": redundancy.detach() * num_clips}
        return BlockOutput(loss, terms, embeddings=batch["first"].detach())


def correlation_sums(first_ND: Tensor, second_ND: Tensor, weights_N: Tensor) -> tuple[Tensor, Tensor]:
    """Compute how far the cross-correlation matrix of two views' features is from the identity.

    Args:
        first_ND: features of the first view.
        second_ND: features of the second view.
        weights_N: 0 for a clip that must not count.

    Returns:
        Σ_i (1 - C_ii)² and Σ_i Σ_{j≠i} C_ij²; both 0 if no clip counts.
    """
    shares_N = weights_N / weights_N.sum().clamp_min(1)
    correlations_DD = (_standardised(first_ND, shares_N) * shares_N[:, None]).T @ _standardised(second_ND, shares_N)
    diagonal_D = correlations_DD.diagonal()
    redundancy = correlations_DD.square().sum() - diagonal_D.square().sum()
    return (shares_N.sum() - diagonal_D).square().sum(), redundancy


def _standardised(features_ND: Tensor, shares_N: Tensor) -> Tensor:
    """Standardise features by mean and (biased, as in batch norm) standard deviation over the clips that count."""
    centred_ND = features_ND - shares_N @ features_ND
    return centred_ND * torch.rsqrt(shares_N @ centred_ND.square() + 1e-5)
