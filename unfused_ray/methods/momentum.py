"""State of momentum methods beside the trained weights: an average of the weights, and a queue of past keys.

Shapes: N clips of a global batch, Q places of a queue, D projection size.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Module = TypeVar("Module", bound=nn.Module)


def target_of(online: Module) -> Module:
    """Copy a network without gradients, to begin an average of its weights."""
    return copy.deepcopy(online).requires_grad_(False)


@torch.no_grad()
def follow(target: nn.Module, online: nn.Module, decay: float) -> None:
    """Move every weight of ``target`` to ``decay · target + (1 - decay) · online``.

    Buffers are not changed: a target stays in training mode, where batch norm does not read its running statistics.

    Source: BYOL, arXiv 2006.07733 eq. 1; MoCo, arXiv 1911.05722 eq. 2.
    """
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), 1 - decay)


class KeyQueue(nn.Module):
    """The newest keys of past batches, which are negatives of the next ones (MoCo, arXiv 1911.05722 sec. 3.2).

    ``keys`` is a (Q, D) buffer, oldest first; a row of zeros is no key. The queue is empty at first, while MoCo's is
    filled with random directions.
    """

    keys: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(size, dim))

    @torch.no_grad()
    def push(self, keys_ND: Tensor) -> None:
        """Add keys, including rows of zeros, and drop as many of the oldest."""
        self.keys.copy_(torch.cat([self.keys, keys_ND])[-len(self.keys) :])

    def loss(self, queries_ND: Tensor, keys_ND: Tensor, temperature: float) -> Tensor:
        """Compute InfoNCE of each query, (N,): cross entropy of its own key among the queue's (MoCo, eq. 1).

        Args:
            queries_ND: the queries, L2-normalised like ``keys_ND`` and the pushed keys.
            keys_ND: the positives.
            temperature: temperature of the softmax.
        """
        positives_N1 = (queries_ND * keys_ND).sum(1, keepdim=True)
        negatives_NQ = (queries_ND @ self.keys.T).masked_fill(~self.keys.any(1), -torch.inf)
        logits = torch.cat([positives_N1, negatives_NQ], dim=1) / temperature
        return F.cross_entropy(
            logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device), reduction="none"
        )
