"""A step never makes the host wait for the device, and ``runtime.deterministic`` gives the same bits again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from support.steps import CONFIGS, Steps, steps_of

from unfused_ray.audio.transfer import pinned, to_device
from unfused_ray.config import TrainingConfig
from unfused_ray.training.worker.device import chosen_kernels, snapshot, to_host
from unfused_ray.training.worker.optimizer import unflatten_optimizer


@contextmanager
def waiting_is_an_error(device: torch.device) -> Iterator[None]:
    """Let torch raise if the host waits for a GPU in this block; without effect on a processor."""
    if device.type == "cpu":
        yield
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_waits_for_nothing(name: str, device: torch.device) -> None:
    step = steps_of(CONFIGS[name].replace({"augment.k_mix": 0}), device)
    with chosen_kernels(step.config.runtime, device):
        for _ in range(2):  # load and choose kernels, make the optimiser's state
            step()
        with waiting_is_an_error(device):
            step()
    assert step.learner.finite_check.first_not_finite(late=0) is None


def test_arrays_arrive_as_they_are_and_come_back(device: torch.device) -> None:
    array = np.random.default_rng(0).standard_normal((64, 1000)).astype(np.float32)
    ready = pinned(array, device)
    with waiting_is_an_error(device):
        tensors = [to_device(array, device), to_device(ready, device)]
        back = [to_host(tensor * 2) for tensor in tensors]
    for give in back:
        np.testing.assert_array_equal(give().numpy(), array * 2)
    assert torch.from_numpy(ready).is_pinned() == (device.type == "cuda")


def test_a_snapshot_is_of_its_moment_while_steps_go_on(device: torch.device) -> None:
    step = steps_of(CONFIGS["tiny"], device)
    step()
    state = step.learner.state
    before = {group: {k: v.clone().cpu() for k, v in tensors.items()} for group, tensors in state.tensors().items()}
    snapshot(state.tensors())()  # load kernels and pin memory
    with waiting_is_an_error(device):
        give = snapshot(state.tensors())
        step()
    found = give()
    assert found.keys() == before.keys() == {"model", "optimizer", "average"}
    for group, tensors in before.items():
        assert not [name for name, value in tensors.items() if not torch.equal(found[group][name], value)]


def three_steps(config: TrainingConfig, device: torch.device, interrupted: bool) -> dict[str, torch.Tensor]:
    """Return the state after three steps; if interrupted, a second learner loads the first's state and continues."""
    step = steps_of(config, device)
    step()
    if interrupted:
        step = resumed(step, device)
    step()
    step()
    return {
        f"{group}/{name}": value.cpu()
        for group, values in step.learner.state.tensors().items()
        for name, value in values.items()
    }


def resumed(before: Steps, device: torch.device) -> Steps:
    """Return a learner that resumes from another's state, copied to the host as in a checkpoint."""
    after = steps_of(before.config, device)
    saved = {
        group: {name: value.cpu().clone() for name, value in values.items()}
        for group, values in before.learner.state.tensors().items()
    }
    state = after.learner.state
    state.method.load_state_dict(saved["model"])
    unflatten_optimizer(state.optimizer, saved["optimizer"])
    assert state.average is not None
    state.average.load_state_dict(saved["average"])
    after.number = before.number
    return after


@pytest.mark.parametrize("name", CONFIGS)
def test_deterministic_steps_end_in_the_same_bits_interrupted_or_not(name: str, device: torch.device) -> None:
    config = CONFIGS[name].replace({"runtime.deterministic": True})
    with chosen_kernels(config.runtime, device):
        whole, parts = (three_steps(config, device, interrupted) for interrupted in (False, True))
    assert whole.keys() == parts.keys()
    assert not [key for key in whole if not torch.equal(whole[key], parts[key])]
