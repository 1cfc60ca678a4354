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
"""Linux's load. In "0.81 0.63 0.60 2/613 29821", 2 threads are running, one of which is this one."""
_MOMENTS, _MOMENT_SECONDS = 8, 0.02
_CGROUP = Path("/sys/fs/cgroup")
"""Folder in which Linux shows a container's CPU quota: "1600000 100000" is 16 cores' worth of every 0.1 s."""


@dataclass(frozen=True)
class Machine:
    """The cores of this machine, and the load of other processes."""

    cores: int
    """Number of cores of the whole machine."""
    load: float
    """Number of cores that other processes keep busy."""

    @classmethod
    def now(cls) -> Self:
        """Measure this machine, for up to 0.2 s.

        The load average of the last minute still includes work that has just ended, such as the ingest before a
        training. So the load is the smaller of that average and of the number of running threads, without this one, at
        several moments. A single moment may show a thread that is just ending, or another thread of this process.
        """
        load = os.getloadavg()[0]
        for _ in range(_MOMENTS if _LOAD.exists() else 0):
            load = min(load, float(_LOAD.read_text().split()[3].partition("/")[0]) - 1)
            if load < 0.5:
                break
            time.sleep(_MOMENT_SECONDS)
        return cls(os.cpu_count() or 1, load)


def usable_cores() -> int:
    """Return the cores that this process may use, at least 1: by its CPU affinity and a container's CPU quota.

    A quota is rounded up. If the system reports no affinity, all cores of the machine count.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _quota() -> float | None:
    """Return the CPU time that a container may take, in cores; None if nothing limits it."""
    files = [_CGROUP / "cpu.max"]
    if not files[0].exists():  # cgroups version 1
        files = [_CGROUP / "cpu" / f"cpu.cfs_{name}_us" for name in ("quota", "period")]
        if not all(file.exists() for file in files):
            return None
    time_allowed, period = " ".join(file.read_text() for file in files).split()
    return None if time_allowed in ("max", "-1") else int(time_allowed) / int(period)


def choose_threads(requested: int, processes: int, cores: int, saved: int | None) -> int:
    """Choose the number of torch threads for each of several equal processes on a machine.

    The requested number is taken; otherwise the one that a checkpoint was written with, if there are cores for it;
    otherwise a share of the cores. A busy machine does not lower it. The last bits of a training depend on the number
    of threads, so the same command on the same machine gives the same weights, whatever else runs there;
    :func:`load_warning` warns instead.

    Args:
        requested: value of ``runtime.threads``; 0 leaves the choice to this function.
        processes: number of processes that compute at the same time.
        cores: cores that they may use together, as counted by :func:`usable_cores`.
        saved: number of threads that the checkpoint to resume from was written with; None if there is none.
    """
    return requested or (saved if saved and saved * processes <= cores else max(1, cores // processes))


def load_warning(threads: int, processes: int, machine: Machine) -> str:
    """Return a warning if other work leaves too few cores for the threads of a training; '' otherwise.

    Beside other work, threads that wait for each other are slower than a single one: 23 clips/s on two threads and 75
    on one, measured.

    Args:
        threads: number of threads of each process.
        processes: number of processes that compute at the same time.
        machine: result of :meth:`Machine.now` before they begin.
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
    """Compute on one thread within this context, so that sums have the same last bits on every machine."""
    import torch  # here, because not every import of this room needs it

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
