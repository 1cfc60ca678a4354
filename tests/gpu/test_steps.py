"""Steps of every method on a GPU: the loss equals float64's, the state stays finite, also in a worker group of one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from support.steps import CONFIGS, NUM_CLASSES, steps_of

from benchmarks.gpu.learning import NoiseBlock, build_method, labels
from unfused_ray.audio.views import Views
from unfused_ray.config import TrainingConfig
from unfused_ray.methods.method import BatchMethod, Method
from unfused_ray.models.precision import ieee_float32
from unfused_ray.training.worker.collectives import Collectives, DistributedCollectives, LocalCollectives, Votes


def loss(method: Method, views: torch.Tensor, labels_HB: torch.Tensor) -> float:
    """Return the loss of a block, or of a batch of one block, in the number format of the views."""
    weights = torch.ones(views.shape[1], dtype=views.dtype, device=views.device)
    output = method(views, weights, labels_HB)
    if isinstance(method, BatchMethod):  # its outputs are float32
        output = method.batch_loss({name: rows.to(views.dtype) for name, rows in output.items()}, weights)
    return float(output.loss.detach())


def two_steps(config: TrainingConfig, device: torch.device, group: Collectives) -> dict[str, torch.Tensor]:
    """Return a method's state after two steps on noise; fail if a loss or gradient is not finite or no weight moves."""
    step = steps_of(config, device, group)
    method = step.learner.method
    before = {name: value.clone() for name, value in method.encoder.named_parameters()}
    for _ in range(2):
        step()
    assert step.learner.finite_check.first_not_finite(late=0) is None
    assert np.isfinite(float(step.sums.values["loss"]))
    assert any(not torch.equal(before[name], value) for name, value in method.encoder.named_parameters())
    return {name: tensor.cpu() for name, tensor in method.state_dict().items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_loss_is_that_of_float64(name: str, device: torch.device) -> None:
    config = CONFIGS[name].replace({"encoder.dropout": 0.0})  # each device draws another mask
    method, size = build_method(config, NUM_CLASSES), config.batch.block
    waves = torch.from_numpy(NoiseBlock.of(config, 0).waves)
    views = Views(config.front_end, config.augment, -5.0, 4.0, 1, method.num_views)(waves, 0, 0)
    labels_HB = torch.from_numpy(np.array(labels(config, size, NUM_CLASSES), np.int64).reshape(-1, size))
    exact = loss(copy.deepcopy(method).double(), views.double(), labels_HB)
    with ieee_float32():
        found = loss(method.to(device), views.to(device), labels_HB.to(device))
    assert found == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_two_steps_are_finite_and_move_the_weights(name: str, precision: str, device: torch.device) -> None:
    lacks = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bfloat16" and lacks:
        pytest.skip("a GPU without instructions for bfloat16")
    config = CONFIGS[name].replace({"runtime.precision": precision})
    state = two_steps(config, device, LocalCollectives())
    assert all(torch.isfinite(tensor).all() for tensor in state.values())


@pytest.fixture
def group_of_one(device: torch.device, tmp_path: Path) -> Iterator[DistributedCollectives]:
    """The collectives of a worker group of one: NCCL's on a GPU, gloo's on a processor."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield DistributedCollectives()
    dist.destroy_process_group()


@pytest.mark.parametrize("name", ["tiny", "cola-tiny"])  # a block's loss, and a batch's
def test_a_group_of_one_does_what_a_process_alone_does(
    name: str, device: torch.device, group_of_one: DistributedCollectives
) -> None:
    alone, grouped = (two_steps(CONFIGS[name], device, group) for group in (LocalCollectives(), group_of_one))
    for key, value in alone.items():
        assert torch.allclose(grouped[key], value, rtol=1e-3, atol=1e-4), key
    assert not group_of_one.vote(Votes(stop=True)).stop  # a vote returns those of the step before
    assert group_of_one.vote(Votes()).stop
    assert group_of_one.gather(torch.arange(3)).tolist() == [0, 1, 2]
    group_of_one.barrier()
