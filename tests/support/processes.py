"""Waits for other threads and processes, and kills child processes."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil


def wait_for(condition: Callable[[], object], seconds: float = 180.0) -> None:
    """Return once the condition holds; fail after ``seconds`` without it."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def kill_child(part: str, but: str | None = None) -> psutil.Process:
    """Kill a descendant process with ``part`` but not ``but`` in its command line; it may take a moment to end."""
    for process in psutil.Process().children(recursive=True):
        try:
            line = " ".join(process.cmdline())
            if part in line and not (but and but in line):
                process.kill()
                return process
        except psutil.NoSuchProcess:  # it ended by itself
            continue
    raise AssertionError(f"no process has {part} in its command line")
