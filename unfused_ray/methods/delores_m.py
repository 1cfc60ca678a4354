"""DeLoRes-M: momentum contrast at the network's end, decorrelation after each of its blocks.

A clip's first view gives the query, its second the key, which an average of the weights computes (MoCo). The loss
distinguishes the query's key from a queue of past keys. It also pulls the cross-correlations of query and key after
each of the three convolution blocks towards the identity (as DeLoRes-S)::

    L = InfoNCE(query, key) + Σ_l (a Σ_i (1 - C_ii^l)² + b Σ_i Σ_{j≠i} (C_ij^l)²)                 l = 1, 2, 3

Both views share the heads whose outputs are correlated, and train them; no gradient reaches the key's encoder.

Source: doi 10.1109/JSTSP.2022.3202093; MoCo, arXiv 1911.05722 sec. 3. The authors' codes differ in a and b:
:class:`unfused_ray.config.DeloresMConfig`. As in their code on one device, keys are not shuffled for batch norm.

Shapes: V views, B clips of a block, N of a global batch, F mel bands, T frames, D projection size, E head's width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unfused_ray.config import DeloresMConfig, EncoderConfig
from unfused_ray.methods.delores_s import correlation_sums
from unfused_ray.methods.method import BatchMethod, BlockOutput, Term
from unfused_ray.methods.momentum import KeyQueue, follow, target_of
from unfused_ray.models.encoder import AudioNTT2020, flatten_bands
from unfused_ray.models.heads import DecorrelationHead
from unfused_ray.models.kernels import max_mean


class DeloresM(BatchMethod):
    """The encoder with a linear projection, the average of both, the queue, and a head for each block."""

    name = "DeLoRes-M"
    terms: ClassVar[Mapping[str, Term]] = {
        "info_nce": Term("InfoNCE", "cross entropy of each clip's key among the queue's"),
        "invariance": Term("invariance", "Σ (1 - C_ii)² of query and key, all blocks summed; 0 is equal views"),
        "redundancy": Term("redundancy", "Σ C_ij², j ≠ i, of query and key, all blocks summed; 0 is no redundancy"),
    }
    num_views = 2

    def __init__(self, config: DeloresMConfig, encoder: EncoderConfig, num_mels: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = AudioNTT2020(encoder, num_mels)
        self.projector = nn.Linear(self.encoder.dim, config.projection_dim)
        self.key_encoder = target_of(self.encoder)
        self.key_projector = target_of(self.projector)
        self.queue = KeyQueue(config.queue, config.projection_dim)
        self.heads = nn.ModuleList(DecorrelationHead(dim, config.decorrelation_dim) for dim in self.encoder.block_dims)

    def forward(self, views_VBFT: Tensor, weights_B: Tensor, labels_HB: Tensor) -> Mapping[str, Tensor]:
        """Return projections, (B, D), and features after each block, (B, E), of queries and keys.

        The key of a clip that must not count is zero, which the queue does not take for a key.
        """
        query_BFT, key_BFT = views_VBFT
        query_BD, query_blocks = _outputs(self.encoder, self.projector, query_BFT)
        with torch.no_grad():
            key_BD, key_blocks = _outputs(self.key_encoder, self.key_projector, key_BFT)
        batch = {"query": query_BD, "key": key_BD * weights_B[:, None]}
        for i, (head, query, key) in enumerate(zip(self.heads, query_blocks, key_blocks, strict=True)):
            batch |= {f"query_block{i}": head(query), f"key_block{i}": head(key)}
        return batch

    def batch_loss(self, batch: Mapping[str, Tensor], weights_N: Tensor) -> BlockOutput:
        """Compute the loss above, its correlation terms once for each clip that counts, and its three sums."""
        info_nce = (self.queue.loss(batch["query"], batch["key"], self.config.temperature) * weights_N).sum()
        pairs = [(batch[f"query_block{i}"], batch[f"key_block{i}"]) for i in range(len(self.heads))]
        sums = [correlation_sums(query, key, weights_N) for query, key in pairs]
        invariance, redundancy = (torch.stack(parts).sum() * weights_N.sum() for parts in zip(*sums, strict=True))
        loss = info_nce + self.config.on_diagonal * invariance + self.config.off_diagonal * redundancy
        terms = {"info_nce": info_nce, "invariance": invariance, "redundancy": redundancy}
        return BlockOutput(
            loss, {name: term.detach() for name, term in terms.items()}, embeddings=batch["query"].detach()
        )

    def after_step(self, batch: Mapping[str, Tensor]) -> None:
        """Move the key's encoder towards the query's, and push this batch's keys into the queue."""
        follow(self.key_encoder, self.encoder, self.config.ema_decay)
        follow(self.key_projector, self.projector, self.config.ema_decay)
        self.queue.push(batch["key"])


def _outputs(encoder: AudioNTT2020, projector: nn.Module, log_mel_BFT: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
    """Return the L2-normalised projections of clips, and each block's output averaged over time."""
    blocks = encoder.blocks(log_mel_BFT)
    embedding_BD = max_mean(encoder.frames(encoder.hidden(blocks[-1])))
    return F.normalize(projector(embedding_BD).float(), dim=1), [flatten_bands(block).mean(1) for block in blocks]
