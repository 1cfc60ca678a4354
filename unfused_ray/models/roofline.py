"""Estimates clips/s on a GPU that is not there, from the operations, bytes and operators of a step, counted here.

Peaks are those of NVIDIA's data sheets, without sparsity. The share of them that is reached, and the time of the host,
are assumptions. So the estimate tells which of two cards is faster and what limits it, and is right within a factor of
two at best.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from unfused_ray.models.cost import Operations

_PRODUCT_SHARE, _BANDWIDTH_SHARE = 0.35, 0.8
"""Shares of the peaks that are reached by products of this network's sizes, and by element-wise kernels."""
_KERNEL_SECONDS, _HOST_SECONDS = 2e-6, 12e-6
"""Least time of an operator on a GPU, and the host's time for it: the launch, autograd and the Python around it."""


@dataclass(frozen=True)
class Card:
    """Peaks of a GPU."""

    product_rate: float
    """Dense bfloat16 operations per second, accumulated in float32."""
    bandwidth: float
    """Bandwidth of its memory, in bytes per second."""


CARDS = {
    "H100": Card(989e12, 3.35e12),
    "A100": Card(312e12, 2.039e12),
    "L4": Card(121e12, 300e9),
    "A10G": Card(70e12, 600e9),
}
"""Cards by NVIDIA's data sheets: H100 SXM5 (1,979 TFLOP/s with sparsity), A100 SXM4 of 80 GB, L4 (242 with sparsity),
A10G."""


class Work(Operations):
    """Counts the operations of a step, the operators that compute, and the bytes that these read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.num_operators = 0
        self.num_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one operator; a view of a tensor does not count."""
        out = super().__torch_dispatch__(func, types, args, kwargs)
        is_view = any(returned.alias_info and not returned.alias_info.is_write for returned in func._schema.returns)
        tensors = {id(leaf): leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)}
        if tensors and not is_view:
            self.num_operators += 1
            self.num_bytes += sum(tensor.nbytes for tensor in tensors.values())
        return out


@dataclass(frozen=True)
class Estimate:
    """Times of a worker's step on a card."""

    clips: int
    products: float
    """Seconds of matrix products and convolutions."""
    memory: float
    """Seconds of reading and writing, as if each operator did its own."""
    launches: float
    """Seconds of the operators' least times together."""
    host: float
    """Seconds of the host, which works ahead of the GPU."""

    @property
    def clips_per_second(self) -> float:
        """Clips per second of a worker that never waits for data."""
        return self.clips / max(self.gpu, self.host)

    @property
    def gpu(self) -> float:
        """Seconds of the GPU."""
        return self.products + self.memory + self.launches

    def __str__(self) -> str:
        parts = {"products": self.products, "memory": self.memory, "launches": self.launches}
        shown = ", ".join(f"{name} {1e3 * seconds:.2g}" for name, seconds in parts.items())
        bound = "the host" if self.host > self.gpu else "the GPU"
        rate = float(f"{self.clips_per_second:.2g}")
        return (
            f"about {rate:,.0f} clips/s a GPU in bfloat16, bound by {bound} (ms a step of {self.clips} clips: host "
            f"{1e3 * self.host:.2g}, GPU {1e3 * self.gpu:.2g}, of which {shown}). An estimate from operations, bytes "
            "and launches that were counted here: nothing has run on such a card"
        )


def count(step: Callable[[], object]) -> Work:
    """Count a step by doing it twice here; only the second counts, because the first creates the optimiser's state."""
    step()
    with Work() as work:
        step()
    return work


def estimate(work: Work, clips: int, card: Card) -> Estimate:
    """Estimate a step on a card.

    Args:
        work: a worker's step of ``clips`` clips, in bfloat16.
        clips: number of clips in the step.
        card: card to estimate for.
    """
    return Estimate(
        clips=clips,
        products=work.count / (_PRODUCT_SHARE * card.product_rate),
        memory=work.num_bytes / (_BANDWIDTH_SHARE * card.bandwidth),
        launches=work.num_operators * _KERNEL_SECONDS,
        host=work.num_operators * _HOST_SECONDS,
    )
