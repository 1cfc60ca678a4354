"""The start of a run, kept in start.json: times from the command to the first step, number format and device."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import psutil

from unfused_ray import storage
from unfused_ray.runs.files import read_file, write_file

START = "start.json"


@dataclass
class StartTimes:
    """Seconds from the command to each milestone, when it is first reached.

    They are sent with the job from the driver to a worker, and are as exact as the clocks of these nodes agree.
    """

    began: float = field(default_factory=time.time)
    """Time of the command, in seconds since 1970."""
    reached: dict[str, float] = field(default_factory=dict)
    arithmetic: str = ""
    """Number format and device of the first worker, as text for people."""

    def reach(self, name: str, when: float | None = None) -> bool:
        """Record a milestone, reached now or at ``when``; return True the first time."""
        if name in self.reached:
            return False
        self.reached[name] = (time.time() if when is None else when) - self.began
        return True

    def write(self, run_uri: str) -> None:
        """Write the times to the run's folder, in their order."""
        seconds = {name: round(when, 3) for name, when in sorted(self.reached.items(), key=lambda item: item[1])}
        write_file(run_uri, START, {"seconds": seconds, "arithmetic": self.arithmetic})


def read_start_times(run_uri: str) -> dict[str, float]:
    """Read the seconds to each milestone of a run's newest start, in their order; empty if it did not reach the first
    step."""
    return _read(run_uri).get("seconds", {})


def read_arithmetic(run_uri: str) -> str:
    """Read number format and device of a run's newest start; '' if it did not reach the first step, or is too old."""
    return _read(run_uri).get("arithmetic", "")


def _read(run_uri: str) -> dict[str, Any]:
    return read_file(run_uri, START) if storage.exists(storage.join(run_uri, START)) else {}


def process_started() -> float:
    """Return the start time of this process, in seconds since 1970."""
    return float(psutil.Process().create_time())
