"""Times work on a device, and says why a part of the GPU's benchmark is left out."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


class SetAsideError(Exception):
    """A part cannot be measured here; its words are the reason."""


def wait(device: torch.device) -> None:
    """Wait for all that the device has been given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device, rounds: int, repeats: int = 1) -> list[float]:
    """Seconds of a call, round by round, after one that does not count.

    Args:
        work: to call.
        device: that it works on.
        rounds: measurements.
        repeats: calls of a measurement, behind which the device is waited for once.
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
