"""Keeps freed memory in the process for the next tensors of the same size, instead of returning it to the system.

A training step allocates the same large tensors again and again. glibc gives each of them back when it is freed and the
system faults every page in anew, zeroed: a third of a step on CPUs (``benchmarks/speed/step.py``). The memory of a
process then stays at its peak, which a training process has in every step anyway.
"""

from __future__ import annotations

import ctypes
import sys

_LIMIT = 2**31 - 1
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(_LIMIT)}
"""Environment of a process that is yet to start and is to keep what it frees, in all its threads: Ray Train trains in a
thread of its worker, and glibc's arenas of threads have 64 MB at most."""

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed() -> None:
    """Let this process keep what it frees, in threads that start from now on as well.

    It is a setting of glibc; with any other C library nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _LIMIT)):
            mallopt(option, value)
