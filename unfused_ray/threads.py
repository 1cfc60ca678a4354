"""The number of torch threads of a process."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_LOAD = Path("/proc/loadavg")
"""Linux writes "0.81 0.63 0.60 2/613 29821", of which 2 threads run, one of them this."""
_MOMENTS, _MOMENT_SECONDS = 8, 0.02


@dataclass(frozen=True)
class Machine:
    """The cores of this machine and the work of other processes."""

    cores: int
    """Cores of the whole machine."""
    usable_cores: int
    """Cores that this process may use."""
    load: float
    """Cores that other processes keep busy."""

    @classmethod
    def now(cls) -> Self:
        """Look at this machine.

        The load average of the last minute still counts what has just ended, such as the ingest before a training. So
        the load is the smaller of that average and of the threads that run at several moments, this one left out: a
        single moment may show one that only lives on to end, or another of this process.
        """
        load = os.getloadavg()[0]
        for _ in range(_MOMENTS if _LOAD.exists() else 0):
            load = min(load, float(_LOAD.read_text().split()[3].partition("/")[0]) - 1)
            if load < 0.5:
                break
            time.sleep(_MOMENT_SECONDS)
        return cls(os.cpu_count() or 1, usable_cores(), load)


def usable_cores() -> int:
    """Cores that this process may use; all, where the system does not say."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def choose_threads(requested: int, processes: int, machine: Machine, saved: int | None = None) -> tuple[int, str]:
    """Choose the torch threads of each of some equal processes on a machine.

    The number asked for is taken; else the one that a checkpoint was written with, if there are cores for it; else a
    share of the cores. A busy machine does not lower it: the last bits of a training depend on the number of threads,
    so the same command on the same machine gives the same weights whoever else computes there. A warning says so
    instead, because threads that wait for each other beside other work are slower than one (23 clips/s on two threads
    and 75 on one, measured).

    Args:
        requested: ``runtime.threads``; 0 leaves the choice here.
        processes: processes that compute side by side.
        machine: from :meth:`Machine.now`, before they begin.
        saved: threads that the checkpoint to resume from was written with.

    Returns:
        The number of threads of a process, and a warning for a person, or ''.
    """
    share = max(1, machine.usable_cores // processes)
    threads = requested or (saved if saved and saved * processes <= machine.usable_cores else share)
    left = round(machine.cores - machine.load)
    if threads == 1 or threads * processes <= left:
        return threads, ""
    fitting = max(1, left // processes)
    return threads, (
        f"other processes load the machine's {machine.cores} cores with {machine.load:.1f}, and this training takes "
        f"{threads * processes}: its threads will wait for each other. --runtime.threads {fitting} is faster beside "
        "them, with other last bits"
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread within this context: sums then have the same last bits on every machine."""
    import torch  # not every process that imports this room needs it

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
