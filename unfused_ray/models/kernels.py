"""Dropout, linear layers, pooled batch norm and pooling over time in a processor's fastest form; on a GPU torch's own.

Each gives the same result as torch's operation, up to rounding. Measured on two cores with bfloat16 instructions, in a
step of DECAR-v2 (``benchmarks.speed.step``, docs/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_POOL = [2, 2]
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_aten = torch.ops.aten
_as_on_gpu = ContextVar("as_on_gpu", default=False)


@contextmanager
def as_on_gpu() -> Iterator[None]:
    """Compute in torch's own form on a CPU too, so that the operators are those of a GPU and can be counted."""
    token = _as_on_gpu.set(True)
    try:
        yield
    finally:
        _as_on_gpu.reset(token)


def dropout(x: Tensor, probability: float) -> Tensor:
    """Zero each element with a probability, and scale the others by 1 / (1 - probability).

    On a CPU the probability is rounded to a multiple of 2⁻¹⁶, and the mask is made of torch's 64-bit random numbers, 16
    bits for each element. This takes a quarter of the time of torch's own, whose Bernoulli draws are sequential.
    """
    if _is_torchs_own(x) or not 0 < probability < 1:
        return F.dropout(x, probability)
    dropped = round(probability * 2**16)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    numbers = words.view(torch.int16)[: x.numel()].view(x.shape)
    kept = (numbers >= dropped - 2**15).to(x.dtype)
    return x * kept.mul_(2**16 / (2**16 - dropped))


def on_frames(layer: nn.Linear, frames: Tensor) -> Tensor:
    """Apply a linear layer to each frame: (B, T', D) → (B, T', layer.out_features).

    On a CPU in float32 it is computed as a 1 × 1 convolution, because oneDNN computes convolutions and MKL matrix
    products: forward and backward of 1,536 frames take 0.54 of the time (docs/log.md). In bfloat16 oneDNN computes
    both, and the matrix product is faster: 0.75 of the time.
    """
    if _is_torchs_own(frames) or frames.dtype != torch.float32:
        return layer(frames)
    batch, num_frames, size = frames.shape
    images = frames.reshape(1, batch * num_frames, 1, size).permute(0, 3, 1, 2)
    outputs = F.conv2d(images, layer.weight[:, :, None, None], layer.bias)
    return outputs.permute(0, 2, 3, 1).reshape(batch, num_frames, -1)


def pooled_batch_norm(x: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalise with the batch's own statistics, then take the maximum of 2 × 2: (B, C, H, W) → (B, C, H // 2, W // 2).

    ``mean`` and ``var``, (C,), are overwritten with the batch's mean and unbiased variance.

    On a CPU the maximum is taken first, because normalisation with a positive weight keeps the order; then only the
    maxima, a quarter of the elements, are normalised. Backward likewise: elements that are no maximum have only the
    gradient through the statistics, which is a multiple of x plus a constant in each channel. Where a weight is not
    positive, on a GPU and under torch.compile, the order is the usual one.

    In bfloat16 the values are torch's, and the gradient of single elements may differ: where two of four normalised
    values are equal after rounding, the usual order gives the gradient to the first, and this one to the larger. The
    gradient cannot be differentiated again.
    """
    if torch.compiler.is_compiling() or _is_torchs_own(x) or bool((weight <= 0).any()):
        return F.max_pool2d(F.batch_norm(x, mean, var, weight, bias, training=True, momentum=1.0, eps=eps), 2)
    result: Tensor = _PooledBatchNorm.apply(x, mean, var, weight, bias, eps)
    return result


def max_mean(frames: Tensor) -> Tensor:
    """Return maximum plus mean over time: (B, T', D) → (B, D).

    Where several frames have the maximum, its gradient is divided among them. On a CPU backward takes a third of the
    time of torch's own and gives the same gradient, which cannot be differentiated again.
    """
    if torch.compiler.is_compiling() or _is_torchs_own(frames):
        return frames.amax(1) + frames.mean(1)
    result: Tensor = _MaxMean.apply(frames)
    return result


def _is_torchs_own(x: Tensor) -> bool:
    # torch.compile cannot trace a context variable.
    return x.is_cuda or (not torch.compiler.is_compiling() and _as_on_gpu.get())


class _PooledBatchNorm(torch.autograd.Function):
    """The maximum of 2 × 2, then batch norm of the maxima with the statistics of the whole batch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        """Give the values of ``pooled_batch_norm``."""
        _, batch_var = torch.batch_norm_update_stats(x, mean, var, 1.0)  # biased; ``var`` receives the unbiased one
        maxima, places = _aten.max_pool2d_with_indices(x, _POOL)
        ctx.save_for_backward(x, maxima, places, mean, batch_var, weight)
        ctx.eps = eps
        return F.batch_norm(maxima, mean, batch_var, weight, bias, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Give the gradients with respect to x, weight and bias.

        With the n normalised values u = (x - mean) / σ of a channel, and g, the gradient at maxima and 0 elsewhere:
        ∂x = weight / σ · (g - (Σg + u · Σgu) / n). Source: batch norm, arXiv 1502.03167 sec. 3.
        """
        x, maxima, places, mean, var, weight = ctx.saved_tensors
        scaled, grad_weight, grad_bias = _aten.native_batch_norm_backward(
            grad, maxima, weight, mean, var, None, None, False, ctx.eps, [True, True, True]
        )
        count, deviation = x.numel() // x.shape[1], (var + ctx.eps).sqrt()
        slope = -weight * grad_weight / (count * deviation.square())
        offset = -weight * grad_bias / (count * deviation) - slope * mean
        grad_x = _affine(x, slope, offset).contiguous(memory_format=torch.channels_last)
        at_maxima = _affine(maxima, slope, offset).add_(scaled)
        # Values are moved as integers, because torch scatters bfloat16 at half the rate (docs/log.md).
        bits = _INTEGERS[x.element_size()]
        _rows(grad_x).view(bits).scatter_(1, _rows(places), _rows(at_maxima).view(bits))
        return grad_x, None, None, grad_weight, grad_bias, None


class _MaxMean(torch.autograd.Function):
    """Maximum plus mean over dimension 1."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor) -> Tensor:
        """Give the values of ``max_mean``."""
        maximum = frames.amax(1, keepdim=True)
        ctx.save_for_backward(frames, maximum)
        return maximum.squeeze(1) + frames.mean(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Give the gradient with respect to the frames."""
        frames, maximum = ctx.saved_tensors
        grad = grad.unsqueeze(1)
        is_maximum = torch.empty_like(frames)
        torch.eq(frames, maximum, out=is_maximum)
        share = grad / is_maximum.sum(1, keepdim=True)
        return torch.addcmul(grad / frames.shape[1], is_maximum, share, out=is_maximum)


def _affine(x: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    """Return slope · x + offset of each channel in one pass, in float32 inside: batch norm of mean 0 and variance 1."""
    return F.batch_norm(x, torch.zeros_like(slope), torch.ones_like(slope), slope, offset, eps=0.0)


def _rows(images: Tensor) -> Tensor:
    """View (B, C, H, W), channels last in memory, as (B, H·W, C)."""
    return images.permute(0, 2, 3, 1).view(len(images), -1, images.shape[1])
