"""A step gives a GPU its work without waiting for it: seen without a GPU, on tensors that only claim to be on one.

Fake tensors know device and shape, and compute nothing. A dispatch mode sees every operation that reads a tensor's
value on the host, or copies between host and device. Allowed are the two functions that do so through pinned memory;
what they do on a GPU, and a whole step there, is tested in tests/gpu. Fake tensors have no backward pass: it is looked
at on a CPU, where an operation that reads a value is the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from unfused_ray import recipes
from unfused_ray.audio import augment
from unfused_ray.config import TrainingConfig
from unfused_ray.data.shards.format import Statistics
from unfused_ray.data.stream.read import Block
from unfused_ray.runs.checkpoints import Position
from unfused_ray.training.stages import stage_of
from unfused_ray.training.worker import finite_check, learner
from unfused_ray.training.worker.collectives import LocalCollectives
from unfused_ray.training.worker.epoch_sums import EpochSums
from unfused_ray.training.worker.learner import Learner

GPU = torch.device("cuda", 0)
NUM_CLIPS = 1000
READS = ("_local_scalar_dense", "nonzero", "unique", "masked_select")
"""Operations whose results, or their shapes, the host knows; and an index of truth values."""
CONFIGS: dict[str, TrainingConfig] = {name: config for name, (_, config) in recipes.PRETRAIN.items() if "tiny" in name}
CONFIGS["unfused"] = recipes.DISTILL["tiny"][1]
CONFIGS = {name: config.replace(ema_decay=0.9) for name, config in CONFIGS.items()}
CONFIGS["tiny, fader"] = CONFIGS["tiny"].replace({"augment.fader": 1.0})
K_MIX = CONFIGS["slicer-tiny"]
CONFIGS["slicer-tiny"] = K_MIX.replace({"augment.k_mix": 0})  # k-means of a block's spectra, on the host


class Waits(TorchDispatchMode):
    """Lists the operations for which the host waits for the device."""

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
    """Tensors are fakes; a GPU's copies through pinned memory, its generator and backward pass are left out."""

    def copied(array: np.ndarray, device: torch.device) -> torch.Tensor:
        return torch.empty(array.shape, dtype=torch.from_numpy(array).dtype, device=device)

    for module in (learner, augment):
        monkeypatch.setattr(module, "to_device", copied)
    monkeypatch.setattr(finite_check, "to_host", lambda tensor: lambda: tensor)
    monkeypatch.setattr(learner, "seed_draws", lambda device, seed: None)
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: None)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def learner_of(config: TrainingConfig, device: torch.device) -> tuple[Learner, Callable[[], None]]:
    """A learner on a device, and one step of it."""
    num_classes = config.labels.num_clusters if config.stage == "distill" else stage_of(config).num_classes(None)
    with device:
        method = stage_of(config).build_method(num_classes)
    method.to = lambda _: method  # type: ignore[method-assign]  # where it is; a fake cannot be moved in place
    if stage_of(config).clustering:
        method.begin_epoch([np.ones((size, config.method.projection_dim), np.float32) for size in num_classes])
    trained = Learner(config, Statistics(1, 0.0, 1.0), method.train(), LocalCollectives(), device)
    for parameter in method.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    trained.state.optimizer.zero_grad = lambda set_to_none: None  # type: ignore[method-assign]
    size, steps = config.batch.block, itertools.count()
    shape = (size, config.crop.num_crops, config.crop.num_samples(config.front_end.sample_rate))
    labels = [np.zeros(NUM_CLIPS, np.int32) for _ in num_classes]

    def step() -> None:
        number = next(steps)
        waves = np.random.default_rng(number).integers(-1000, 1000, shape).astype(np.int16)
        block = Block(number, np.arange(size), waves, np.ones(size, np.float32))
        trained.step(Position(0, number), itertools.repeat(block), labels, 1e-3, EpochSums(), lambda ids, rows: None)

    return trained, step


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_on_a_gpu_copies_through_pinned_memory_alone_and_reads_nothing(name: str) -> None:
    trained, step = learner_of(CONFIGS[name], GPU)
    step()  # the optimiser makes its state
    with Waits() as waits:
        step()
    assert not waits.found
    assert {parameter.device for parameter in trained.method.parameters()} == {GPU}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_with_its_backward_pass_reads_no_value(name: str) -> None:
    _, step = learner_of(CONFIGS[name], torch.device("cpu"))
    with Waits() as waits:
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
    _, step = learner_of(K_MIX, GPU)
    with pytest.raises(RuntimeError, match="numpy"):
        step()
