"""When a run has reached what, from the command to its first step: start.json, for whoever asks where the time went."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import psutil

from unfused_ray import storage
from unfused_ray.runs.files import read_file, write_file

START = "start.json"


@dataclass
class Milestones:
    """Seconds from the command to each milestone, the first time it is reached.

    They travel with the job from the driver to a worker, and are only as true as the clocks of their nodes agree.
    """

    began: float = field(default_factory=time.time)
    """When the command was given, in seconds since 1970."""
    reached: dict[str, float] = field(default_factory=dict)

    def reach(self, name: str, when: float | None = None) -> bool:
        """Note a milestone, as of now or of ``when``; whether it is the first time."""
        if name in self.reached:
            return False
        self.reached[name] = (time.time() if when is None else when) - self.began
        return True

    def write(self, run_uri: str) -> None:
        """Keep them in the run's folder, in their order."""
        seconds = {name: round(when, 3) for name, when in sorted(self.reached.items(), key=lambda item: item[1])}
        write_file(run_uri, START, {"seconds": seconds})


def read_start_times(run_uri: str) -> dict[str, float]:
    """Seconds to each milestone of a run's newest start, in their order; none where it has not come to its end."""
    return read_file(run_uri, START)["seconds"] if storage.exists(storage.join(run_uri, START)) else {}


def process_started() -> float:
    """When this process was started, in seconds since 1970."""
    return float(psutil.Process().create_time())
