"""The learning-rate schedule, the groups of weight decay, and an optimiser's state in files."""

from __future__ import annotations

import itertools
import math

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from unfused_ray.config import OptimizerConfig
from unfused_ray.models.batch_norm import BlockBatchNorm
from unfused_ray.training.worker.optimizer import (
    build_optimizer,
    flatten_optimizer,
    learning_rate,
    set_learning_rate,
    unflatten_optimizer,
)


def test_linear_warm_up_then_half_a_cosine_to_the_final_rate() -> None:
    config = OptimizerConfig(lr=2.0, warmup_epochs=1.5, final_lr=0.1)
    rates = [learning_rate(config, step, steps_per_epoch=4, num_steps=26) for step in range(27)]
    assert rates[:6] == pytest.approx([2 * (step + 1) / 6 for step in range(6)])
    assert rates[6] == pytest.approx(2.0)
    assert rates[16] == pytest.approx(0.5 * (2.0 + 0.2))  # half way down
    assert rates[11] == pytest.approx(0.2 + 1.8 * (1 + math.cos(math.pi / 4)) / 2)
    assert rates[26] == pytest.approx(0.2)


def test_without_warm_up_the_first_step_has_the_peak_rate() -> None:
    assert learning_rate(OptimizerConfig(lr=0.3, warmup_epochs=0), 0, 10, 100) == pytest.approx(0.3)


@given(warmup=st.floats(0, 20), steps_per_epoch=st.integers(1, 50), epochs=st.integers(1, 10), final=st.floats(0, 1))
def test_the_rate_rises_to_the_peak_and_falls_from_it(
    warmup: float, steps_per_epoch: int, epochs: int, final: float
) -> None:
    config = OptimizerConfig(lr=1.0, warmup_epochs=warmup, final_lr=final)
    num_steps = steps_per_epoch * epochs
    rates = [learning_rate(config, step, steps_per_epoch, num_steps) for step in range(num_steps)]
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(1.0)
    assert all(a < b for a, b in itertools.pairwise(rates[: peak + 1]))
    assert all(a >= b for a, b in itertools.pairwise(rates[peak:]))
    assert all(0 < rate <= 1 + 1e-12 for rate in rates)


def small_module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), BlockBatchNorm(7), nn.ReLU(), nn.Linear(7, 3))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_biases_and_batch_norm_are_not_decayed(name: str) -> None:
    module = small_module()
    optimizer = build_optimizer(OptimizerConfig(name=name, weight_decay=0.5, lr=0.1), module)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    changed = {key for key, value in module.named_parameters() if not torch.equal(value, before[key])}
    assert changed == {"0.weight", "3.weight"}
    torch.testing.assert_close(module.state_dict()["0.weight"], before["0.weight"] * (1 - 0.1 * 0.5))


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        set_learning_rate(optimizer, 0.1 / (step + 1))
        optimizer.zero_grad()
        x = torch.randn(6, 5, generator=torch.Generator().manual_seed(step))
        module(x).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_an_optimisers_state_survives_files_bit_for_bit(name: str) -> None:
    config = OptimizerConfig(name=name, weight_decay=0.01)
    module = small_module()
    optimizer = build_optimizer(config, module)
    train(module, optimizer, range(5))
    tensors = {key: value.clone() for key, value in flatten_optimizer(optimizer).items()}
    tensors = safetensors.torch.load(safetensors.torch.save(tensors))

    other = small_module()
    other.load_state_dict(module.state_dict())
    restored = build_optimizer(config, other)
    unflatten_optimizer(restored, tensors)
    again = flatten_optimizer(restored)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[key], tensors[key]) and again[key].dtype == tensors[key].dtype for key in tensors)
    train(module, optimizer, range(5, 9))
    train(other, restored, range(5, 9))
    assert all(map(torch.equal, module.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_an_optimiser_that_takes_up_a_state_keeps_its_own_settings(name: str) -> None:
    """A fork with a larger weight decay must use it."""
    module = small_module()
    optimizer = build_optimizer(OptimizerConfig(name=name, weight_decay=0.01, momentum=0.9), module)
    train(module, optimizer, range(2))
    other = build_optimizer(OptimizerConfig(name=name, weight_decay=0.5, momentum=0.3), module)
    settings = [{key: value for key, value in group.items() if key != "params"} for group in other.param_groups]
    unflatten_optimizer(other, flatten_optimizer(optimizer))
    assert [{key: group[key] for key in group if key != "params"} for group in other.param_groups] == settings
    assert flatten_optimizer(other).keys() == flatten_optimizer(optimizer).keys()
