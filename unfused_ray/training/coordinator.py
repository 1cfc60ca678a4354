"""The coordinator of a run, on the driver's node: stream position, request to stop, progress, and tracking.

Workers report to the coordinator and learn from it whether to stop. The driver reads progress from it and asks it to
stop. The stream asks it which parts of which passes to read. With a worker group the coordinator lives in an actor, and
driver, workers and stream each hold a :class:`~unfused_ray.training.runtimes.remote_coordinator.RemoteCoordinator` in
its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from unfused_ray.data.stream.plan import UNREAD, Execution
from unfused_ray.lease import InUseError
from unfused_ray.tracking.mlflow import TrackedRun
from unfused_ray.tracking.sender import Tracker

MAX_FAILURES = 3
"""Number of worker groups in a row that begin at one step and fail at one place, or fail before they begin, after which
the run is given up."""
MAX_LOST_NODES = 10
"""The same limit if nodes of the groups were lost. It is higher because machines that come and go are no fault of the
run. But a machine that is ended because its memory is full looks the same, and would be replaced for ever."""
CLOSE_STEPS = 3
"""Largest number of steps between failures at one place: a killed worker reports nothing, and its last report may be a
second old."""


class Message(NamedTuple):
    """An event of a run that a person should read."""

    text: str
    rank: int | None = None
    """Rank of the worker that it happened to; None if it concerns no single worker."""


@dataclass
class RunProgress:
    """Progress of a running training, for a person to read."""

    phase: str = "starting"
    step: int = 0
    """Number of global batches done since the start of the run."""
    num_steps: int = 0
    """Number of global batches that are done when the run ends, by ``stop_after`` or ``epochs``."""
    figures: dict[str, float] = field(default_factory=dict)
    damaged_clips: int = 0
    arithmetic: str = ""
    """Number format and device that rank 0 computes with; '' until it begins."""
    messages: tuple[Message, ...] = ()
    """Messages since the run started, such as that a worker group failed."""


@dataclass(frozen=True)
class Failure:
    """A worker group that has failed."""

    first: int | None
    """Global batches that were done when the group began; None if it failed before."""
    last: int
    """Global batches that were done when the group failed."""
    lost_node: bool = False
    """True if a node of the group was lost or taken away."""


class CoordinatorClient(Protocol):
    """The methods of a :class:`Coordinator` that driver, workers and stream call, wherever it lives."""

    def set_execution(self, execution: Execution) -> None: ...  # noqa: D102
    def execution(self) -> Execution: ...  # noqa: D102
    def begin_attempt(self, first_step: int) -> str: ...  # noqa: D102
    def is_first_attempt(self) -> bool: ...  # noqa: D102
    def note_failure(self, causes: Sequence[str], lost_node: bool) -> str: ...  # noqa: D102
    def failed_at(self, step: int) -> None: ...  # noqa: D102
    def report(self, progress: RunProgress, metrics: Mapping[str, float] | None = None) -> str: ...  # noqa: D102
    def note(self, text: str, rank: int | None = None) -> None: ...  # noqa: D102
    def progress(self) -> RunProgress: ...  # noqa: D102
    def request_stop(self, reason: str) -> None: ...  # noqa: D102
    def abandon(self, reason: str) -> None: ...  # noqa: D102
    def close(self, status: str) -> int: ...  # noqa: D102


class Coordinator:
    """State shared by the driver, the workers and the stream of one run.

    Args:
        tracked: the run in MLflow; None if it is not tracked.
        first_step: number of global batches that were done before.
    """

    def __init__(self, tracked: TrackedRun | None, first_step: int = 0) -> None:
        self._execution = UNREAD
        self._stop = ""
        self._abandoned = ""
        self._progress = RunProgress(step=first_step)
        self._messages: list[Message] = []
        self._has_begun = False  # True once any group has begun
        self._attempt: int | None = None  # step at which the current group began; None before
        self._failures: list[Failure] = []
        # Created last, because its thread may call note().
        self._tracker = Tracker(tracked, self.note, first_step) if tracked else None

    def set_execution(self, execution: Execution) -> None:
        """Set the segments of passes that the next execution of Ray Data reads."""
        self._execution = execution

    def execution(self) -> Execution:
        """Return the segments to read now."""
        return self._execution

    def begin_attempt(self, first_step: int) -> str:
        """Register a worker group; return the reason it may not start, or ''.

        Args:
            first_step: number of global batches that were done before.
        """
        if self._abandoned:
            return self._abandoned
        self._has_begun, self._attempt = True, first_step
        self._progress = replace(self._progress, phase="starting", step=first_step, figures={})
        return ""

    def is_first_attempt(self) -> bool:
        """Return True if no worker group has started yet."""
        return not self._has_begun

    def note_failure(self, causes: Sequence[str], lost_node: bool) -> str:
        """Record that the current group has failed; return the reason that no other group may follow, or ''.

        No other group may follow if the last ``MAX_FAILURES`` groups that lost no node, or the last ``MAX_LOST_NODES``
        of all groups, began at one checkpoint and failed at one place, or failed before they began. On machines that
        come and go, groups are also lost between the same two checkpoints, but not at one place.

        Args:
            causes: one or more texts that say which part has failed and why.
            lost_node: True if a node of the group was lost or taken away.
        """
        self._failures.append(Failure(self._attempt, self._progress.step, lost_node))
        self._attempt = None
        own = [failure for failure in self._failures if not failure.lost_node]
        reason = ""
        for failures, limit in ((own, MAX_FAILURES), (self._failures, MAX_LOST_NODES)):
            last = failures[-limit:]
            if len(last) == limit and _at_one_place(last):
                place = f"at step {last[-1].last}" if last[-1].first is not None else "before their first step"
                reason = f"the workers have failed {limit} times {place}: {'; '.join(causes)}"
        for cause in causes:
            self.note(cause if reason else f"{cause}: starting again from the newest checkpoint")
        return reason

    def failed_at(self, step: int) -> None:
        """Record how many global batches were done when a worker failed."""
        self._progress = replace(self._progress, step=step)

    def report(self, progress: RunProgress, metrics: Mapping[str, float] | None = None) -> str:
        """Store rank 0's progress and send ``metrics`` to the tracker; return the reason to stop, or ''.

        Raises:
            InUseError: the run was abandoned.
        """
        if self._abandoned:
            raise InUseError(self._abandoned)
        self._progress = progress
        if metrics and self._tracker:
            self._tracker.log(metrics, progress.step)
        return self._stop

    def note(self, text: str, rank: int | None = None) -> None:
        """Keep a :class:`Message` for the person who watches the run."""
        self._messages.append(Message(text, rank))

    def progress(self) -> RunProgress:
        """Return the newest report, with all messages."""
        return replace(self._progress, messages=tuple(self._messages))

    def request_stop(self, reason: str) -> None:
        """Ask the workers to write a checkpoint and end."""
        self._stop = reason

    def abandon(self, reason: str) -> None:
        """Make the workers end without writing anything, and stop tracking."""
        self._abandoned = reason
        self.stop_tracking()

    def close(self, status: str) -> int:
        """End tracking; return how many metrics were lost."""
        return self._tracker.close(status) if self._tracker else 0

    def stop_tracking(self) -> None:
        """Stop sending metrics, because the run has ended here or belongs to another process."""
        if self._tracker:
            self._tracker.give_up()


def _at_one_place(failures: Sequence[Failure]) -> bool:
    """Return True if all groups began at one checkpoint, or did not begin, and failed within some steps of each
    other."""
    began = {failure.first for failure in failures} - {None}
    ends = [failure.last for failure in failures]  # a group that has not begun counts at the step of the one before it
    return len(began) <= 1 and max(ends) - min(ends) <= CLOSE_STEPS
