"""Dropout, linear layers, batch norm and pooling have torch's values and gradients in every number format."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
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


def pooled_and_gradients(
    pooled: Callable[..., torch.Tensor], x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> dict[str, torch.Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
    mean, var = torch.zeros_like(weight), torch.zeros_like(weight)
    out = pooled(leaves[0], mean, var, *leaves[1:], 1e-5)
    out.backward(torch.sin(torch.arange(out.numel())).view(out.shape).to(out.dtype))
    gradients = {f"gradient of {name}": leaf.grad for name, leaf in zip(("x", "weight", "bias"), leaves, strict=True)}
    return {"out": out.detach(), "mean": mean, "var": var, **gradients}


def normalised_then_pooled(x, mean, var, weight, bias, eps):
    return F.max_pool2d(F.batch_norm(x, mean, var, weight, bias, training=True, momentum=1.0, eps=eps), 2)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("lowest", [0.2, 0.0, -1.0], ids=["positive", "zero", "negative"])
@given(
    batch=st.integers(1, 3),
    sides=st.tuples(st.integers(2, 7), st.integers(2, 7)),
    channels_last=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_pooling_before_normalising_is_pooling_after(dtype, lowest, batch, sides, channels_last, seed):
    """All values of a channel differ, in bfloat16 too, so that every maximum has one place."""
    generator = torch.Generator().manual_seed(seed)
    count = batch * sides[0] * sides[1]
    ranks = torch.stack([torch.randperm(count, generator=generator) for _ in range(3)]).to(dtype)
    x = ((ranks - count // 3) / 8).view(3, batch, *sides).transpose(0, 1)
    x = x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    parameters = torch.float64 if dtype == torch.float64 else torch.float32
    weight, bias = torch.tensor([lowest, 1.0, 2.5], dtype=parameters), torch.tensor([0.5, 0.0, -3.0], dtype=parameters)
    parts = [torch.zeros_like(weight), torch.ones_like(weight), weight.clone().requires_grad_(), bias]
    first = kernels.pooled_batch_norm(x, *parts, 1e-5).grad_fn.name()
    assert first.startswith("_PooledBatchNorm") == (lowest > 0)
    found = pooled_and_gradients(kernels.pooled_batch_norm, x, weight, bias)
    expected = pooled_and_gradients(normalised_then_pooled, x, weight, bias)
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float64: 1e-10}[dtype]
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        torch.testing.assert_close(
            found[name], value, rtol=tolerance, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("dtype", FORMATS)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 5)),
    levels=st.integers(1, 6),
    frames_last=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_max_plus_mean_has_torchs_values_and_gradients_also_where_frames_are_equal(
    dtype, shape, levels, frames_last, seed
):
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(levels, shape, generator=generator).to(dtype) - 1
    if frames_last:
        frames = frames.transpose(1, 2).contiguous().transpose(1, 2)
    weights = torch.randn(shape[0], shape[2], generator=generator).to(dtype)
    found, expected = frames.clone().requires_grad_(), frames.clone().requires_grad_()
    out, naive = kernels.max_mean(found), expected.amax(1) + expected.mean(1)
    assert type(out.grad_fn).__name__ == "_MaxMeanBackward"
    out.backward(weights)
    naive.backward(weights)
    tolerance = {torch.float32: 1e-6, torch.bfloat16: 2e-2, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(out, naive, rtol=0, atol=0)
    torch.testing.assert_close(found.grad, expected.grad, rtol=tolerance, atol=tolerance)
