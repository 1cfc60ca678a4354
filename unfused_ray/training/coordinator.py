"""One coordinator a run, on the driver's node: where the stream stands, whether to stop, progress, and tracking.

The workers tell it what they do and learn whether to stop; the driver reads progress from it and asks it to stop. In
the in-process runtime it is a plain object, otherwise a Ray actor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import ray

from unfused_ray.data.stream.plan import UNREAD, Segment
from unfused_ray.lease import InUseError
from unfused_ray.tracking.mlflow import TrackedRun
from unfused_ray.tracking.prometheus import Exported
from unfused_ray.tracking.sender import Tracker

MAX_FAILURES = 3
"""Attempts in a row that may begin at one step and fail at another, or close to it."""
CLOSE_STEPS = 3
"""A worker that is killed says nothing: where it was, its last report says, which may be a second old."""


class Message(NamedTuple):
    """What has happened to a run."""

    text: str
    rank: int | None = None
    """Of the worker that it happened to; None where it is of no one worker."""


@dataclass
class Progress:
    """What a person wants to know of a run that is on."""

    phase: str = "starting"
    step: int = 0
    """Global batches done since the start of the run."""
    num_steps: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    damaged_clips: int = 0
    messages: tuple[Message, ...] = ()
    """Since the run started, such as that a worker group failed."""


class Coordinator:
    """State shared by the driver and the workers of one run.

    Args:
        tracked: what the run is in MLflow; None where it is not tracked.
        first_step: global batches that were done before.
    """

    def __init__(self, tracked: TrackedRun | None, first_step: int = 0) -> None:
        self._tracker = Tracker(tracked) if tracked else None
        self._exported = Exported(tracked.name) if tracked else None
        self._segment = UNREAD
        self._stop = ""
        self._abandoned = ""
        self._progress = Progress(step=first_step)
        self._messages: list[Message] = []
        self._attempt: int | None = None  # the step at which the group that is on began
        self._failures: list[tuple[int, int]] = []  # where the groups that have failed began, and how far they came
        self._cause = ""

    def set_segment(self, segment: Segment) -> None:
        """Say which part of which pass the next execution of Ray Data covers."""
        self._segment = segment

    def segment(self) -> Segment:
        """The part of the pass that is wanted now."""
        return self._segment

    def begin_attempt(self, first_step: int) -> str:
        """A worker group starts: '' where it may, otherwise why it may not.

        It may not where the last ``MAX_FAILURES`` groups began at one checkpoint and failed at one place. On machines
        that come and go, groups are lost between the same two checkpoints too, but not at one place.

        Args:
            first_step: global batches that were done before.
        """
        if self._abandoned:
            return self._abandoned
        if self._attempt is not None:
            self._failures.append((self._attempt, self._progress.step))
        last = self._failures[-MAX_FAILURES:]
        began, ended = {first for first, _ in last}, [step for _, step in last]
        if len(last) == MAX_FAILURES and len(began) == 1 and max(ended) - min(ended) <= CLOSE_STEPS:
            return f"the workers have failed {MAX_FAILURES} times at step {ended[-1]}: {self._cause or 'killed'}"
        self._attempt = first_step
        self._progress = replace(self._progress, phase="starting", step=first_step, figures={})
        return ""

    def note_failure(self, cause: str) -> None:
        """A worker of the group that is on has failed."""
        self._cause = cause
        self.note(f"{cause}: starting again from the newest checkpoint")

    def failed_at(self, step: int) -> None:
        """A worker says, before it fails, how many global batches are done."""
        self._progress = replace(self._progress, step=step)

    def report(self, progress: Progress, metrics: Mapping[str, float] | None = None) -> str:
        """Rank 0's sign of life; ``metrics`` go to the tracker. Returns why to stop, or ''.

        Raises:
            InUseError: the run was abandoned.
        """
        if self._abandoned:
            raise InUseError(self._abandoned)
        self._progress = progress
        if metrics and self._tracker:
            self._tracker.log(metrics, progress.step)
        if metrics and self._exported:
            self._exported.set({**metrics, "step": progress.step, "damaged_clips": progress.damaged_clips})
        return self._stop

    def note(self, text: str, rank: int | None = None) -> None:
        """Keep a message for whoever watches the run; see :class:`Message`."""
        self._messages.append(Message(text, rank))

    def progress(self) -> Progress:
        """The newest report, with all messages."""
        return replace(self._progress, messages=tuple(self._messages))

    def request_stop(self, reason: str) -> None:
        """Ask the workers to write a checkpoint and end."""
        self._stop = reason

    def abandon(self, reason: str) -> None:
        """Make the workers end without writing anything, and track nothing more."""
        self._abandoned = reason
        self.stop_tracking()

    def close(self, status: str) -> int:
        """End tracking; returns how many metrics were lost."""
        return self._tracker.close(status) if self._tracker else 0

    def stop_tracking(self) -> None:
        """Send nothing more: the run has ended here, or belongs to another process."""
        if self._tracker:
            self._tracker.give_up()


class RemoteCoordinator:
    """A worker's way to the coordinator that never waits: reports are sent, the answer to an earlier one returned."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._pending: list[ray.ObjectRef] = []
        self._stop = ""

    def set_segment(self, segment: Segment) -> None:
        """See :meth:`Coordinator.set_segment`; waits, because the stream starts right after."""
        ray.get(self._actor.set_segment.remote(segment))

    def note(self, text: str, rank: int | None = None) -> None:
        """See :meth:`Coordinator.note`; does not wait."""
        self._actor.note.remote(text, rank)

    def failed_at(self, step: int) -> None:
        """See :meth:`Coordinator.failed_at`; waits, because this process may end right after."""
        ray.get(self._actor.failed_at.remote(step))

    def report(self, progress: Progress, metrics: Mapping[str, float] | None = None) -> str:
        """See :meth:`Coordinator.report`."""
        self._pending.append(self._actor.report.remote(progress, metrics))
        ready, self._pending = ray.wait(self._pending, num_returns=len(self._pending), timeout=0)
        for answer in ray.get(ready):
            self._stop = answer
        return self._stop


@dataclass(frozen=True)
class WantedSegment:
    """Asks the coordinator, from wherever Ray Data plans, which segment is wanted.

    Ray Train and Ray Data hold the dataset, and with it this, in actors of their own: so it lives here, without torch.
    """

    actor: Any

    def __call__(self) -> Segment:
        """What :meth:`Coordinator.segment` says now."""
        segment: Segment = ray.get(self.actor.segment.remote())
        return segment
