"""The cores that a process may use, and the number of its torch threads."""

from __future__ import annotations

import math
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
_CGROUP = Path("/sys/fs/cgroup")
"""Where Linux shows a container the CPU time that it may take: "1600000 100000" is 16 cores' worth of every 0.1 s."""


@dataclass(frozen=True)
class Machine:
    """The cores of this machine and the work of other processes."""

    cores: int
    """Cores of the whole machine."""
    load: float
    """Cores that other processes keep busy."""

    @classmethod
    def now(cls) -> Self:
        """Look at this machine, for up to 0.2 s.

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
        return cls(os.cpu_count() or 1, load)


def usable_cores() -> int:
    """Cores that this process may use, at least 1: those it may run on, but no more than a container's CPU quota.

    A quota is rounded up. All cores of the machine, where the system does not say.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _quota() -> float | None:
    """The CPU time that a container may take, in cores; None where nothing limits it."""
    files = [_CGROUP / "cpu.max"]
    if not files[0].exists():  # the first version of cgroups
        files = [_CGROUP / "cpu" / f"cpu.cfs_{name}_us" for name in ("quota", "period")]
        if not all(file.exists() for file in files):
            return None
    time_allowed, period = " ".join(file.read_text() for file in files).split()
    return None if time_allowed in ("max", "-1") else int(time_allowed) / int(period)


def choose_threads(requested: int, processes: int, cores: int, saved: int | None = None) -> int:
    """Choose the torch threads of each of some equal processes on a machine.

    The number asked for is taken; else the one that a checkpoint was written with, if there are cores for it; else a
    share of the cores. A busy machine does not lower it: the last bits of a training depend on the number of threads,
    so the same command on the same machine gives the same weights whoever else computes there;
    :func:`load_warning` says so instead.

    Args:
        requested: ``runtime.threads``; 0 leaves the choice here.
        processes: processes that compute side by side.
        cores: that they may use together, as :func:`usable_cores` counts them.
        saved: threads that the checkpoint to resume from was written with.
    """
    return requested or (saved if saved and saved * processes <= cores else max(1, cores // processes))


def load_warning(threads: int, processes: int, machine: Machine) -> str:
    """Say to a person that other work leaves too few cores for the threads of a training; '' if it does not.

    Threads that wait for each other beside other work are slower than one: 23 clips/s on two threads and 75 on one,
    measured.

    Args:
        threads: of each process.
        processes: that compute side by side.
        machine: from :meth:`Machine.now`, before they begin.
    """
    left = round(machine.cores - machine.load)
    if threads == 1 or threads * processes <= left:
        return ""
    fitting = max(1, left // processes)
    return (
        f"other processes load the machine's {machine.cores} cores with {machine.load:.1f}, and this training uses "
        f"{threads * processes}: its threads will wait for each other. --runtime.threads {fitting} is faster now, but "
        "results differ in their last bits"
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
