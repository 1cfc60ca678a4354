"""UnFuSeD: a network distils its end into branches after each of its blocks.

An encoder with random weights is trained on pseudo-labels of the target task. Its end is the *teacher*; a *student*
branch leaves after each of the three convolution blocks, each with a classifier of its own::

    L = L_ce + α Σ_i L_ce^i + (1 - α) Σ_i L_kl^i + β Σ_i L_mse^i                 i = 1, 2, 3

Afterwards only the beginning of the network is kept, without classifiers.

Source: UnFuSeD, arXiv 2303.05668; "Be your own teacher", arXiv 1905.08094 sec. 3. Where these and the LAPE code differ,
a setting decides (:class:`unfused_ray.config.UnfusedConfig`).

Shapes: V views, B clips, F mel bands, T frames, H heads, K clusters, D hidden features of a classifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unfused_ray.config import Cut, EncoderConfig, UnfusedConfig
from unfused_ray.methods.method import BlockMethod, BlockOutput
from unfused_ray.models.encoder import AudioNTT2020, flatten_bands
from unfused_ray.models.heads import ClassifierHead
from unfused_ray.models.kernels import max_mean


class Unfused(BlockMethod):
    """The encoder, and a classifier after each block and at its end.

    Args:
        config: settings of the method.
        encoder: settings of the whole network.
        num_mels: number of mel bands.
        num_classes: K, number of classes, of each head: each clustering of the clips has logits of its own.
    """

    name = "UnFuSeD"

    def __init__(
        self, config: UnfusedConfig, encoder: EncoderConfig, num_mels: int, num_classes: Sequence[int]
    ) -> None:
        super().__init__()
        self.config = config
        self.num_views = config.num_views
        self.encoder = AudioNTT2020(encoder, num_mels)
        self.branches = nn.ModuleList(
            ClassifierHead(dim, config.head_hidden, num_classes) for dim in self.encoder.block_dims
        )
        self.teacher = ClassifierHead(self.encoder.dim, config.head_hidden, num_classes)

    @property
    def export_cut(self) -> Cut:
        """Last layer of the student."""
        return self.config.cut

    def forward(self, views_VBFT: Tensor, weights_B: Tensor, labels_HB: Tensor) -> BlockOutput:
        """Compute the loss above; a clip whose label is -1 in any head does not count."""
        num_views, batch = views_VBFT.shape[:2]
        blocks = self.encoder.blocks(views_VBFT.flatten(0, 1))
        teacher = Exit(*self.teacher(max_mean(self.encoder.frames(self.encoder.hidden(blocks[-1])))))
        branches = [
            Exit(*head(max_mean(flatten_bands(block)))) for head, block in zip(self.branches, blocks, strict=True)
        ]
        weights_B = weights_B * (labels_HB >= 0).all(0)
        labels_HN = labels_HB.clamp_min(0).repeat(1, num_views)
        terms_N = distillation_terms(teacher, branches, labels_HN, self.config)
        terms = {name: (term.view(num_views, batch).mean(0) * weights_B).sum() for name, term in terms_N.items()}
        alpha, beta = self.config.alpha, self.config.beta
        loss = terms["ce"] + alpha * terms["ce_branches"] + (1 - alpha) * terms["kl"] + beta * terms["mse"]
        hits_N = torch.stack(
            [(logits.argmax(1) == head).float() for logits, head in zip(teacher.logits, labels_HN, strict=True)]
        ).mean(0)
        agreement = (hits_N.view(num_views, batch).mean(0) * weights_B).sum()
        return BlockOutput(loss, {name: term.detach() for name, term in terms.items()} | {"agreement": agreement})


@dataclass(frozen=True)
class Exit:
    """The outputs of a classifier for N views."""

    features: Tensor
    """(N, D)."""
    logits: Sequence[Tensor]
    """(N, K) for each head; K differs between heads."""


def distillation_terms(
    teacher: Exit, branches: Sequence[Exit], labels_HN: Tensor, config: UnfusedConfig
) -> dict[str, Tensor]:
    """Compute the four sums of the loss for each of N views, averaged over the heads: each (N,).

    Args:
        teacher: the end of the network.
        branches: its other exits.
        labels_HN: int64 pseudo-labels.
        config: gives temperature, detaching, and the outputs that the MSE compares.

    Returns:
        ``ce`` of the teacher; ``ce_branches``, ``kl`` (teacher ‖ branch, times the temperature's square) and ``mse``
        (2 - 2·cos), each summed over the branches.
    """
    target = Exit(teacher.features.detach(), [logits.detach() for logits in teacher.logits])
    if not config.detach_teacher:
        target = teacher
    return {
        "ce": _cross_entropy(teacher, labels_HN),
        "ce_branches": torch.stack([_cross_entropy(branch, labels_HN) for branch in branches]).sum(0),
        "kl": torch.stack([_kl(target, branch, config.temperature) for branch in branches]).sum(0),
        "mse": torch.stack([_mse(target, branch, config.mse_of) for branch in branches]).sum(0),
    }


def _cross_entropy(exit_: Exit, labels_HN: Tensor) -> Tensor:
    pairs = zip(exit_.logits, labels_HN, strict=True)
    return torch.stack([F.cross_entropy(logits, labels, reduction="none") for logits, labels in pairs]).mean(0)


def _kl(target: Exit, branch: Exit, temperature: float) -> Tensor:
    divergences = []
    for target_NK, branch_NK in zip(target.logits, branch.logits, strict=True):
        log_p, log_q = F.log_softmax(target_NK / temperature, 1), F.log_softmax(branch_NK / temperature, 1)
        divergences.append(F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1))
    return torch.stack(divergences).mean(0) * temperature**2


def _mse(target: Exit, branch: Exit, mse_of: str) -> Tensor:
    if mse_of == "features":
        return 2 - 2 * F.cosine_similarity(target.features, branch.features)
    pairs = zip(target.logits, branch.logits, strict=True)
    return torch.stack([2 - 2 * F.cosine_similarity(a, b) for a, b in pairs]).mean(0)
