"""Dropout and linear layers have torch's values and gradients in every number format."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unfused_ray.models import kernels

FORMATS = [torch.float32, torch.bfloat16, torch.float64]


@pytest.mark.parametrize("dtype", FORMATS)
def test_dropout_keeps_its_share_scaled_and_follows_the_seed(dtype: torch.dtype) -> None:
    x = torch.ones(400, 1_001, dtype=dtype, requires_grad=True)
    torch.manual_seed(7)
    dropped = kernels.dropout(x, 0.3)
    kept = dropped != 0
    assert dropped.dtype == dtype
    assert kept.double().mean().item() == pytest.approx(0.7, abs=0.004)  # 5 standard deviations
    assert kept.double().mean(0).std().item() == pytest.approx((0.7 * 0.3 / 400) ** 0.5, rel=0.15)
    assert kept.double().mean(1).std().item() == pytest.approx((0.7 * 0.3 / 1_001) ** 0.5, rel=0.2)
    torch.testing.assert_close(dropped[kept].unique(), torch.tensor([1 / 0.7], dtype=dtype), rtol=5e-3, atol=0)
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped.detach())
    torch.manual_seed(7)
    assert torch.equal(kernels.dropout(x, 0.3), dropped)
    assert not torch.equal(kernels.dropout(x, 0.3), dropped)


def test_all_bits_of_a_random_number_are_used() -> None:
    """A word of 64 bits gives four elements; with only 63 random bits, one of the four would never be dropped."""
    torch.manual_seed(0)
    kept = kernels.dropout(torch.ones(400_000), 0.5) != 0
    assert kept.view(-1, 4).double().mean(0).tolist() == pytest.approx([0.5] * 4, abs=0.01)


def test_no_dropout_and_full_dropout_are_those_of_torch() -> None:
    x = torch.randn(3, 5)
    assert torch.equal(kernels.dropout(x, 0.0), x)
    assert not kernels.dropout(x, 1.0).any()


@pytest.mark.parametrize("dtype", FORMATS)
def test_a_layer_on_frames_is_a_linear_layer(dtype: torch.dtype) -> None:
    layer, frames = nn.Linear(6, 5).to(dtype), torch.randn(2, 3, 6, dtype=dtype)
    found, expected = kernels.on_frames(layer, frames), layer(frames)
    torch.testing.assert_close(found, expected)
    grads = [torch.autograd.grad(out.double().square().sum(), layer.parameters()) for out in (found, expected)]
    for mine, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)
