"""BYOL-A: an online network predicts a slowly following target network's projection of another view; no negatives.

Source: BYOL-A, arXiv 2103.06695 sec. III, on BYOL, arXiv 2006.07733 sec. 3. Both views are of one crop (sec. III-A). As
in the authors' code, the target network is in training mode too, with dropout. Batch norm sees one view at a time
there, but both views of a block together here, as in the other methods.

Shapes: V views, B clips of a block, F mel bands, T frames, D projection size.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from unfused_ray.config import ByolAConfig, EncoderConfig
from unfused_ray.methods.method import BlockMethod, BlockOutput
from unfused_ray.methods.momentum import follow, target_of
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.models.heads import perceptron


class ByolA(BlockMethod):
    """The encoder with a projector and a predictor, and the target, an average of encoder and projector."""

    name = "BYOL-A"
    num_views = 2

    def __init__(self, config: ByolAConfig, encoder: EncoderConfig, num_mels: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = AudioNTT2020(encoder, num_mels)
        hidden, dim = config.hidden, config.projection_dim
        self.projector = perceptron(self.encoder.dim, hidden, dim)  # BYOL sec. 3.3
        self.predictor = perceptron(dim, hidden, dim)
        self.target_encoder = target_of(self.encoder)
        self.target_projector = target_of(self.projector)

    def forward(self, views_VBFT: Tensor, weights_B: Tensor, labels_HB: Tensor) -> BlockOutput:
        """Compute the distance of every view's prediction to the target's projection of the other view, summed over
        both."""
        views_NFT = normalize_views(views_VBFT, weights_B).flatten(0, 1)
        projections_ND = self.projector(self.encoder(views_NFT))
        predictions_VBD = self.predictor(projections_ND).unflatten(0, views_VBFT.shape[:2])
        with torch.no_grad():
            targets_VBD = self.target_projector(self.target_encoder(views_NFT)).unflatten(0, views_VBFT.shape[:2])
        loss_B = prediction_loss(predictions_VBD.float(), targets_VBD.float())
        return BlockOutput((loss_B * weights_B).sum(), embeddings=projections_ND[: len(weights_B)].detach().float())

    def after_step(self, batch: Mapping[str, Tensor]) -> None:
        """Move the target towards the online network."""
        follow(self.target_encoder, self.encoder, self.config.ema_decay)
        follow(self.target_projector, self.projector, self.config.ema_decay)


def normalize_views(views_VBFT: Tensor, weights_B: Tensor) -> Tensor:
    """Normalise log-mels to zero mean and unit variance over all views of a block together, without clips of weight 0.

    It is needed because augmentation has shifted their statistics (BYOL-A, arXiv 2103.06695 sec. III-B4).
    """
    counted_B = torch.where(weights_B.any(), weights_B, 1.0)  # a block of damaged clips only stays finite
    shares_B = counted_B / counted_B.sum()
    with torch.autocast(views_VBFT.device.type, enabled=False):  # autocast would compute products in bfloat16
        views_VBFT = views_VBFT - views_VBFT.mean((0, 2, 3)) @ shares_B
        return views_VBFT / (views_VBFT.square().mean((0, 2, 3)) @ shares_B).sqrt().clamp_min(1e-5)


def prediction_loss(predictions_2BD: Tensor, targets_2BD: Tensor) -> Tensor:
    """Return ``2 - 2·cos`` of each view's prediction and the other view's target, summed over the two: (B,).

    Source: BYOL, arXiv 2006.07733 eq. 2, made symmetric as in sec. 3.1.
    """
    return (2 - 2 * F.cosine_similarity(predictions_2BD, targets_2BD.flip(0), dim=2)).sum(0)
