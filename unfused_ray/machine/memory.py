"""Keeps freed memory in the process for the next tensors of the same size, instead of returning it to the system.

A training step allocates the same large tensors repeatedly. By default glibc returns each to the system when it is
freed, and the system zeroes every page when it is needed again, which takes a third of a step on CPUs
(``benchmarks/speed/step.py``). With this setting the memory of a process stays at its peak, which a training process
reaches in every step anyway.
"""

from __future__ import annotations

import ctypes
import sys

_LIMIT = 2**31 - 1
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(_LIMIT)}
"""Environment for a new process that keeps the memory it frees, in all its threads: Ray Train trains in a thread of its
worker, and glibc's arenas of threads hold at most 64 MB."""

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed() -> None:
    """Make this process keep the memory it frees, also in threads that start from now on.

    This is a setting of glibc; with any other C library nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _LIMIT)):
            mallopt(option, value)
