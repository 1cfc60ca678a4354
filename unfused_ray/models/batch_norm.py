"""Batch norm with the statistics of a block of clips, however blocks are spread over workers."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfused_ray.models import kernels

_EPS = 1e-5
"""Added to variances; torch's own value."""


class BlockBatchNorm(nn.Module):
    """Batch norm over the block it is given; its running statistics move once per optimiser step.

    In training each call normalises with the mean and (biased) variance of its input, as torch's batch norm does, and
    adds its mean and unbiased variance to ``pending``. ``update_running_statistics`` averages them over all blocks of
    the global batch and makes one step. So neither the output nor the running statistics depend on which worker held
    which block. Under ``torch.no_grad`` a call in training normalises in the same way but adds nothing to ``pending``.
    In evaluation the running statistics are used.

    Takes (N, C) or (N, C, …). With ``pool`` it takes (N, C, H, W) and gives the maximum of 2 × 2 of the normalised
    values, (N, C, H // 2, W // 2). ``pending`` is a buffer, so that it follows the module to its device, but is not
    saved, because it is zero between steps.

    Source: batch norm, arXiv 1502.03167; blocks ("ghost batches"), arXiv 1705.08741 sec. 4.
    """

    running_mean: Tensor
    running_var: Tensor
    pending: Tensor

    def __init__(self, num_features: int, pool: bool = False) -> None:
        super().__init__()
        self.pool = pool
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        # Sums of means, sums of variances, number of blocks; in double precision, so that their order makes no
        # difference.
        self.register_buffer("pending", torch.zeros(2 * num_features + 1, dtype=torch.float64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x``, (N, C) or (N, C, …), over all dimensions but the second; pool, if ``pool`` is set."""
        if not self.training:
            out = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=_EPS)
            return F.max_pool2d(out, 2) if self.pool else out
        mean, var = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        if self.pool:
            out = kernels.pooled_batch_norm(x, mean, var, self.weight, self.bias, _EPS)
        else:  # with momentum 1, running statistics become the block's own, which saves a second pass over x
            out = F.batch_norm(x, mean, var, self.weight, self.bias, training=True, momentum=1.0, eps=_EPS)
        if torch.is_grad_enabled():
            self.pending += torch.cat([mean, var, mean.new_ones(1)])
        return out


@torch.no_grad()
def update_running_statistics(
    module: nn.Module, all_reduce: Callable[[Tensor], object] | None = None, momentum: float = 0.1
) -> None:
    """Move the running statistics of every BlockBatchNorm in ``module`` towards the pending blocks' average.

    Called once after each optimiser step. ``all_reduce`` sums its argument, one flat float64 tensor, over the workers
    in place (``torch.distributed.all_reduce``). A norm that has seen no block is not changed. With ``momentum`` 1 the
    running statistics become the average itself: a pass over data in training mode (gradients enabled), then one call,
    calibrates an encoder with random weights. Nothing waits for the device.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, BlockBatchNorm)]
    if not norms:
        return
    pending = torch.cat([norm.pending for norm in norms])
    if all_reduce is not None:
        all_reduce(pending)
    for norm, sums in zip(norms, pending.split([len(norm.pending) for norm in norms]), strict=True):
        num_blocks = sums[-1]
        mean, var = (sums[:-1] / num_blocks.clamp_min(1)).to(norm.running_mean.dtype).chunk(2)
        step = (momentum * (num_blocks > 0)).to(norm.running_mean.dtype)
        norm.running_mean.lerp_(mean, step)
        norm.running_var.lerp_(var, step)
        norm.pending.zero_()
