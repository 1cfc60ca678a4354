"""SLICER: contrast of clips with a queue's, and contrast of clusters, the columns of a batch's soft assignments.

A teacher that follows the student computes the keys of the instance-level contrast. The cluster-level contrast is
between the student's two views. K-mix, SLICER's augmentation, is ``AugmentConfig.k_mix``.

Source: SLICER, arXiv 2211.01519, as the authors' LAPE code has it; the queue is MoCo's (arXiv 1911.05722), the cluster
loss that of Contrastive Clustering (arXiv 2009.09687 sec. 3.3). Two things differ from that code. The teacher moves
once a step instead of twice. And no view's key is a negative in the same step: that code queues the keys of the first
direction before the second, so that a clip's other view is its own negative.

Shapes: V views, B clips of a block, N of a global batch, D projection size, K clusters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unfused_ray.config import EncoderConfig, SlicerConfig
from unfused_ray.methods.method import BatchMethod, BlockOutput, Term
from unfused_ray.methods.momentum import KeyQueue, follow, target_of
from unfused_ray.models.encoder import AudioNTT2020


class Slicer(BatchMethod):
    """The encoder with an instance and a cluster projector, the teacher of encoder and instance projector, and its
    queue."""

    name = "SLICER"
    terms: ClassVar[Mapping[str, Term]] = {
        "instance_loss": Term("instance contrast", "InfoNCE of the clips, both directions"),
        "cluster_loss": Term("cluster contrast", "of the soft clusters' columns, less weighted entropies"),
    }
    num_views = 2

    def __init__(self, config: SlicerConfig, encoder: EncoderConfig, num_mels: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = AudioNTT2020(encoder, num_mels)
        self.projector = nn.Linear(self.encoder.dim, config.projection_dim)
        self.cluster_projector = nn.Sequential(
            nn.Linear(self.encoder.dim, self.encoder.dim),
            nn.ReLU(inplace=True),
            nn.Linear(self.encoder.dim, config.num_clusters),
        )
        self.teacher_encoder = target_of(self.encoder)
        self.teacher_projector = target_of(self.projector)
        self.queue = KeyQueue(config.queue, config.projection_dim)

    def forward(self, views_VBFT: Tensor, weights_B: Tensor, labels_HB: Tensor) -> Mapping[str, Tensor]:
        """Return queries (B, V, D), keys (B, V, D), zeros for clips without weight, and cluster probabilities (B, V,
        K)."""
        views_NFT = views_VBFT.flatten(0, 1)
        embeddings = self.encoder(views_NFT)
        queries = F.normalize(self.projector(embeddings).float(), dim=1)
        clusters = self.cluster_projector(embeddings).float().softmax(1)
        with torch.no_grad():
            keys = F.normalize(self.teacher_projector(self.teacher_encoder(views_NFT)).float(), dim=1)
        by_view = {"queries": queries, "keys": keys, "clusters": clusters}
        batch = {name: rows.unflatten(0, views_VBFT.shape[:2]).transpose(0, 1) for name, rows in by_view.items()}
        return batch | {"keys": batch["keys"] * (weights_B > 0)[:, None, None]}

    def batch_loss(self, batch: Mapping[str, Tensor], weights_N: Tensor) -> BlockOutput:
        """Compute the instance contrast of every clip in both directions, and the cluster contrast once for each
        clip."""
        queries, keys = batch["queries"], batch["keys"]
        instance_N = self._contrast(queries[:, 0], keys[:, 1]) + self._contrast(queries[:, 1], keys[:, 0])
        one, other = batch["clusters"].unbind(1)
        cluster = cluster_loss(one, other, weights_N, self.config.cluster_temperature)
        cluster = cluster - self.config.entropy * (size_entropy(one, weights_N) + size_entropy(other, weights_N))
        sums = {"instance_loss": (instance_N * weights_N).sum(), "cluster_loss": cluster * weights_N.sum()}
        return BlockOutput(
            sums["instance_loss"] + sums["cluster_loss"],
            {name: value.detach() for name, value in sums.items()},
            embeddings=queries[:, 0].detach(),
        )

    def _contrast(self, queries_ND: Tensor, keys_ND: Tensor) -> Tensor:
        return self.queue.loss(queries_ND, keys_ND, self.config.temperature)

    def after_step(self, batch: Mapping[str, Tensor]) -> None:
        """Move the teacher towards the student, and queue the step's keys of both views."""
        follow(self.teacher_encoder, self.encoder, self.config.ema_decay)
        follow(self.teacher_projector, self.projector, self.config.ema_decay)
        self.queue.push(batch["keys"].transpose(0, 1).flatten(0, 1))


def cluster_loss(one_NK: Tensor, other_NK: Tensor, weights_N: Tensor, temperature: float) -> Tensor:
    """Compute the cross entropy of every cluster's counterpart in the other view among all clusters of both, by cosine.

    A cluster is a column: the share of each clip in it. The loss is averaged over the 2·K columns.

    Source: Contrastive Clustering, arXiv 2009.09687 eq. 4 and 5.
    """
    columns = F.normalize(torch.cat([one_NK, other_NK], dim=1) * weights_N.sign()[:, None], dim=0)
    num_columns = columns.shape[1]
    itself = torch.eye(num_columns, dtype=torch.bool, device=columns.device)
    logits = (columns.T @ columns / temperature).masked_fill(itself, -torch.inf)
    counterparts = torch.arange(num_columns, device=columns.device).roll(num_columns // 2)
    return F.cross_entropy(logits, counterparts)


def size_entropy(probabilities_NK: Tensor, weights_N: Tensor) -> Tensor:
    """Compute the entropy of the clusters' shares of the clips: log K if all are equal, 0 if one has all clips.

    Source: Contrastive Clustering, arXiv 2009.09687 eq. 6.
    """
    shares_K = weights_N.sign() @ probabilities_NK / weights_N.sign().sum().clamp_min(1)
    return torch.special.entr(shares_K.clamp_min(torch.finfo(shares_K.dtype).tiny)).sum()  # the slope at 0 is infinite
