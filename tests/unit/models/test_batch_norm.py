"""Block batch norm equals torch's, however the blocks are spread over workers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from unfused_ray.models.batch_norm import BlockBatchNorm, update_running_statistics

SHAPES = [(16, 5), (8, 5, 7), (4, 5, 6, 3)]


def blocks(num_blocks: int, shape: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [2 * i + (1 + i) * torch.randn(shape, generator=generator) for i in range(num_blocks)]


def torch_norm(shape: tuple[int, ...], momentum: float | None = 0.1) -> nn.Module:
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    return kind(shape[1], momentum=momentum)


@pytest.mark.parametrize("shape", SHAPES)
def test_one_block_a_step_is_torchs_batch_norm(shape):
    ours, theirs = BlockBatchNorm(shape[1]), torch_norm(shape)
    for x in blocks(3, shape):
        gradients = []
        for norm in (ours, theirs):
            with torch.no_grad():
                norm.weight.copy_(torch.linspace(-1, 2, shape[1]))
                norm.bias.copy_(torch.linspace(1, 0, shape[1]))
            norm.zero_grad()
            leaf = x.clone().requires_grad_()
            out = norm(leaf)
            (out * torch.sin(x)).sum().backward()
            gradients.append((out, leaf.grad, norm.weight.grad, norm.bias.grad))
        torch.testing.assert_close(gradients[0], gradients[1])
        update_running_statistics(ours)
        torch.testing.assert_close(ours.running_mean, theirs.running_mean)
        torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("spread", [[[0, 1, 2, 3]], [[0, 1], [2, 3]], [[3], [1], [0], [2]], [[1, 2, 0, 3], []]])
def test_running_statistics_do_not_depend_on_the_workers(spread):
    shape = (8, 5, 7)
    model = nn.Sequential(BlockBatchNorm(5), nn.Conv1d(5, 3, 1), BlockBatchNorm(3))
    workers = [copy.deepcopy(model) for _ in spread]
    inputs = [blocks(4, shape), [model[:2](x) for x in blocks(4, shape)]]
    expected_mean = [torch.stack([x.mean((0, 2)) for x in xs]).mean(0) for xs in inputs]
    expected_var = [torch.stack([x.var((0, 2)) for x in xs]).mean(0) for xs in inputs]

    for worker, share in zip(workers, spread, strict=True):
        for i in share:
            worker(blocks(4, shape)[i])
    total = sum(torch.cat([worker[i].pending for i in (0, 2)]) for worker in workers)
    calls = []

    def all_reduce(tensor: torch.Tensor) -> None:
        calls.append(tensor.shape)
        tensor.copy_(total)

    for worker in workers:
        update_running_statistics(worker, all_reduce)
        for norm, mean, var in zip((worker[0], worker[2]), expected_mean, expected_var, strict=True):
            torch.testing.assert_close(norm.running_mean, 0.1 * mean)
            torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * var)
    assert len(calls) == len(workers), "one collective a step"


def test_one_pass_and_momentum_one_calibrate():
    xs = blocks(5, (16, 3))
    norm, reference = BlockBatchNorm(3), torch_norm((16, 3), momentum=None)
    for x in xs:
        torch.testing.assert_close(norm(x), reference(x))
    update_running_statistics(norm, momentum=1.0)
    torch.testing.assert_close(norm.running_mean, reference.running_mean)
    torch.testing.assert_close(norm.running_var, reference.running_var)


def test_nothing_moves_without_blocks_in_evaluation_or_without_gradients():
    norm = BlockBatchNorm(3)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    update_running_statistics(norm)
    x = torch.randn(4, 3)
    with torch.no_grad():
        without_gradients = norm(x)
    update_running_statistics(norm)
    torch.testing.assert_close(without_gradients, norm(x), atol=0, rtol=0)
    norm.pending.zero_()
    norm.eval()(torch.randn(4, 3))
    update_running_statistics(norm)
    update_running_statistics(nn.Linear(2, 2))
    for name, value in norm.state_dict().items():
        torch.testing.assert_close(value, before[name], atol=0, rtol=0)


def test_pending_is_not_saved_and_is_spent_by_a_step():
    norm = BlockBatchNorm(3)
    norm(torch.randn(4, 3))
    assert set(norm.state_dict()) == {"weight", "bias", "running_mean", "running_var"}
    assert norm.pending[-1] == 1
    update_running_statistics(norm)
    assert (norm.pending == 0).all()


def test_statistics_stay_in_float32_under_autocast():
    x = torch.randn(64, 8) * 3 + 100
    norm = BlockBatchNorm(8)
    with torch.autocast("cpu", torch.bfloat16):
        norm(x)
    torch.testing.assert_close(norm.pending[:8].float(), x.mean(0))
