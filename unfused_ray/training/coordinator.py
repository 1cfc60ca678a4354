"""One coordinator a run, on the driver's node: where the stream stands, whether to stop, progress, and tracking.

The workers tell it what they do and learn whether to stop; the driver reads progress from it and asks it to stop. In
the in-process runtime it is a plain object, otherwise a Ray actor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import ray

from unfused_ray.data.stream import UNREAD, Segment
from unfused_ray.training.tracking import Tracker

MAX_FAILURES_AT_A_STEP = 2


@dataclass
class Progress:
    """What a person wants to know of a run that is on."""

    phase: str = "starting"
    step: int = 0
    """Global batches done since the start of the run."""
    num_steps: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    damaged_clips: int = 0
    messages: tuple[str, ...] = ()
    """What has happened to the run since it started, such as a worker group that failed."""


class Coordinator:
    """State shared by the driver and the workers of one run.

    Args:
        tracker: arguments of its :class:`Tracker`.
    """

    def __init__(self, tracker: Mapping[str, Any]) -> None:
        self._tracker = Tracker(**tracker)
        self._segment = UNREAD
        self._stop = ""
        self._progress = Progress()
        self._messages: list[str] = []
        self._failures: dict[int, int] = {}
        self._attempts = 0

    def set_segment(self, segment: Segment) -> None:
        """Say which part of which pass the next execution of Ray Data covers."""
        self._segment = segment

    def segment(self) -> Segment:
        """The part of the pass that is wanted now."""
        return self._segment

    def begin_attempt(self) -> str:
        """A worker group starts: '' where it may, otherwise why it may not (it fails at the same step again)."""
        step = self._progress.step
        self._attempts += 1
        if self._attempts > 1:
            self._failures[step] = self._failures.get(step, 0) + 1
            if self._failures[step] >= MAX_FAILURES_AT_A_STEP:
                return f"the workers have failed {self._failures[step]} times after step {step}"
        return ""

    def report(self, progress: Progress, metrics: Mapping[str, float] | None = None) -> str:
        """Rank 0's sign of life; ``metrics`` go to the tracker. Returns why to stop, or ''."""
        self._progress = progress
        if metrics:
            self._tracker.log(metrics, progress.step)
        return self._stop

    def note(self, message: str) -> None:
        """Keep a message for whoever watches the run."""
        self._messages.append(message)

    def progress(self) -> Progress:
        """The newest report, with all messages."""
        return replace(self._progress, messages=tuple(self._messages))

    def request_stop(self, reason: str) -> None:
        """Ask the workers to write a checkpoint and end."""
        self._stop = reason

    def close(self, status: str) -> int:
        """End tracking; returns how many metrics were lost."""
        return self._tracker.close(status)


class RemoteCoordinator:
    """A worker's way to the coordinator that never waits: reports are sent, the answer to an earlier one returned."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._pending: list[ray.ObjectRef] = []
        self._stop = ""

    def set_segment(self, segment: Segment) -> None:
        """See :meth:`Coordinator.set_segment`; waits, because the stream starts right after."""
        ray.get(self._actor.set_segment.remote(segment))

    def report(self, progress: Progress, metrics: Mapping[str, float] | None = None) -> str:
        """See :meth:`Coordinator.report`."""
        self._pending.append(self._actor.report.remote(progress, metrics))
        ready, self._pending = ray.wait(self._pending, num_returns=len(self._pending), timeout=0)
        for answer in ray.get(ready):
            self._stop = answer
        return self._stop
