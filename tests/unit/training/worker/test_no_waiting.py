"""A step never waits for the GPU, checked without a GPU on fake tensors.

Fake tensors have a device and a shape, and compute nothing. A dispatch mode sees every operation that reads a tensor's
value on the host, or that copies between host and device. Only the two functions that copy through pinned memory are
allowed; tests/gpu tests them, and a whole step, on a GPU. Fake tensors have no backward pass, so it is checked on a
CPU, where the same operations read values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from support import steps
from support.steps import Steps, steps_of
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from unfused_ray.audio import augment
from unfused_ray.config import TrainingConfig
from unfused_ray.models import kernels
from unfused_ray.training.worker import finite_check, learner

GPU = torch.device("cuda", 0)
READS = ("_local_scalar_dense", "nonzero", "unique", "masked_select")
"""Operations that give the host a value, or a shape that depends on values; indexing by a mask is another."""
K_MIX = steps.CONFIGS["slicer-tiny"]
CONFIGS = {
    **steps.CONFIGS,
    "tiny, fader": steps.CONFIGS["tiny"].replace({"augment.fader": 1.0}),
    "slicer-tiny": K_MIX.replace({"augment.k_mix": 0}),  # k-mix clusters spectra on the host
}


class Waits(TorchDispatchMode):
    """Dispatch mode that lists the operations for which the host waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)]
        masks = "aten::index" in func.name() and any(tensor.dtype == torch.bool for tensor in tensors)
        if len({tensor.device.type for tensor in tensors}) > 1 or masks or any(read in func.name() for read in READS):
            self.found.append(func.name())
        return out


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make tensors fake; leave out copies through pinned memory, the GPU's generator and the backward pass."""

    def copied(array: np.ndarray, device: torch.device) -> torch.Tensor:
        return torch.empty(array.shape, dtype=torch.from_numpy(array).dtype, device=device)

    for module in (learner, augment):
        monkeypatch.setattr(module, "to_device", copied)
    monkeypatch.setattr(finite_check, "to_host", lambda tensor: lambda: tensor)
    for name in ("seed_draws", "describe_arithmetic"):
        monkeypatch.setattr(learner, name, lambda *arguments: "")
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: None)
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, device: module)  # a module's fake tensors cannot move
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def steps_on_fakes(config: TrainingConfig) -> Steps:
    """Return steps on fake tensors with gradients of zero, as there is no backward pass."""
    with GPU:
        step = steps_of(config, GPU)
    for parameter in step.learner.method.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    step.learner.state.optimizer.zero_grad = lambda set_to_none: None  # type: ignore[method-assign]
    return step


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_on_a_gpu_copies_through_pinned_memory_alone_and_reads_nothing(name: str) -> None:
    step = steps_on_fakes(CONFIGS[name])
    step()  # makes the optimiser's state
    with Waits() as waits:
        step()
    assert not waits.found
    assert {parameter.device for parameter in step.learner.method.parameters()} == {GPU}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_with_its_backward_pass_reads_no_value(name: str) -> None:
    step = steps_of(CONFIGS[name], torch.device("cpu"))
    with kernels.as_on_gpu(), Waits() as waits:
        step()
    assert not waits.found


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize(
    "waiting",
    [
        lambda tensor: torch.ones(2).to(tensor.device),
        lambda tensor: tensor.to("cpu"),
        lambda tensor: tensor + torch.tensor([1.0, 2.0], device=tensor.device),
    ],
    ids=["to device", "to host", "values"],
)
def test_a_wait_is_seen(waiting: Callable[[torch.Tensor], object]) -> None:
    tensor = torch.zeros(2, device=GPU)
    with Waits() as waits:
        waiting(tensor)
    assert waits.found


def test_a_value_that_is_read_is_seen() -> None:
    tensor = torch.ones(2)
    for reading in (lambda: tensor.sum().item(), lambda: bool(tensor[0]), lambda: tensor[tensor > 0]):
        with Waits() as waits:
            reading()
        assert waits.found


@pytest.mark.usefixtures("pretended")
def test_k_mix_alone_asks_for_values() -> None:
    step = steps_on_fakes(K_MIX)
    with pytest.raises(RuntimeError, match="numpy"):
        step()
