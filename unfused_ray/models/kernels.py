"""Dropout and linear layers in the form that is fastest on a processor; on a GPU they are torch's own.

Each gives the same result as torch's operation. Measured on two cores with bfloat16 instructions, in a step of DECAR-v2
(``benchmarks.speed.step``, docs/performance.md).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def dropout(x: Tensor, probability: float) -> Tensor:
    """Zero each element with a probability, and scale the others by 1 / (1 - probability).

    On a CPU the probability is rounded to a multiple of 2⁻¹⁶, and the mask is made of torch's 64-bit random numbers, 16
    bits for each element. This takes a quarter of the time of torch's own, whose Bernoulli draws are sequential.
    """
    if x.is_cuda or not 0 < probability < 1:
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
    if frames.is_cuda or frames.dtype != torch.float32:
        return layer(frames)
    batch, num_frames, size = frames.shape
    images = frames.reshape(1, batch * num_frames, 1, size).permute(0, 3, 1, 2)
    outputs = F.conv2d(images, layer.weight[:, :, None, None], layer.bias)
    return outputs.permute(0, 2, 3, 1).reshape(batch, num_frames, -1)
