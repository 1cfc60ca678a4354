"""Times work on a device, and carries the reason why a part of the GPU's benchmark is left out."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


class SetAsideError(Exception):
    """A part cannot be measured here; the message is the reason."""


def wait(device: torch.device) -> None:
    """Wait for all work that the device has been given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device, rounds: int, repeats: int = 1) -> list[float]:
    """Return the seconds of a call in each round, after one call that does not count.

    Args:
        work: function to call.
        device: device that it works on.
        rounds: number of measurements.
        repeats: calls per measurement; the device is waited for once, after the last.
    """
    work()
    wait(device)
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        wait(device)
        taken.append((time.perf_counter() - started) / repeats)
    return taken
