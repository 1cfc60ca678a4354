"""The coordinator as a Ray actor, and the way to it from other processes.

Ray Train and Ray Data hold a :class:`RemoteCoordinator` in actors of their own: this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray

from unfused_ray import cluster
from unfused_ray.data.stream.plan import Segment
from unfused_ray.tracking.mlflow import TrackedRun
from unfused_ray.tracking.prometheus import Gauges
from unfused_ray.training.coordinator import Coordinator, RunProgress

# A restarted coordinator learns again what matters: the position from workers and stream, the request to stop from the
# driver. Messages and the count of failures begin anew.
_OUTLIVES_ITS_PROCESS = {"max_restarts": -1, "max_task_retries": -1}


class CoordinatorActor(Coordinator):
    """A coordinator in an actor, which exports the metrics of a tracked run to Prometheus too."""

    def __init__(self, tracked: TrackedRun | None, first_step: int) -> None:
        super().__init__(tracked, first_step)
        self._gauges = Gauges(tracked.name) if tracked else None
        self._was_restarted = ray.get_runtime_context().was_current_actor_reconstructed

    def report(self, progress: RunProgress, metrics: Mapping[str, float] | None = None) -> str:
        """Keep the progress, track the metrics and export them."""
        reason = super().report(progress, metrics)
        if metrics and self._gauges:
            self._gauges.set({**metrics, "step": progress.step, "damaged_clips": progress.damaged_clips})
        return reason

    def is_first_attempt(self) -> bool:
        """Return True if certainly no worker group has started yet."""
        return self._attempt is None and not self._was_restarted


class RemoteCoordinator:
    """A :class:`CoordinatorClient` of an actor. Calls of workers do not wait, where they need no answer.

    Args:
        actor: of a :class:`CoordinatorActor`.
    """

    def __init__(self, actor: ray.actor.ActorHandle) -> None:
        self._actor = actor
        self._pending: list[ray.ObjectRef] = []
        self._stop = ""

    @classmethod
    def start(cls, tracked: TrackedRun | None, first_step: int) -> RemoteCoordinator:
        """Start the actor on this node."""
        options = {**_OUTLIVES_ITS_PROCESS, **cluster.on_this_node()}
        return cls(ray.remote(CoordinatorActor).options(**options).remote(tracked, first_step))

    def kill(self) -> None:
        """End the actor."""
        ray.kill(self._actor)

    def set_segment(self, segment: Segment) -> None:
        """Set the segment and wait, because the stream starts right after."""
        self._ask("set_segment", segment)

    def segment(self) -> Segment:
        """Return the segment to read."""
        segment: Segment = self._ask("segment")
        return segment

    def begin_attempt(self, first_step: int) -> str:
        """Register a worker group."""
        return str(self._ask("begin_attempt", first_step))

    def is_first_attempt(self) -> bool:
        """Return True if certainly no worker group has started yet."""
        return bool(self._ask("is_first_attempt"))

    def note_failure(self, cause: str) -> None:
        """Record a failure; does not wait."""
        self._actor.note_failure.remote(cause)

    def failed_at(self, step: int) -> None:
        """Record the step and wait, because this process may end right after."""
        self._ask("failed_at", step)

    def report(self, progress: RunProgress, metrics: Mapping[str, float] | None = None) -> str:
        """Send a report; return the answer to an earlier one."""
        self._pending.append(self._actor.report.remote(progress, metrics))
        ready, self._pending = ray.wait(self._pending, num_returns=len(self._pending), timeout=0)
        for answer in ray.get(ready):
            self._stop = answer
        return self._stop

    def note(self, text: str, rank: int | None = None) -> None:
        """Keep a message; does not wait."""
        self._actor.note.remote(text, rank)

    def progress(self) -> RunProgress:
        """Return the newest report, with all messages."""
        progress: RunProgress = self._ask("progress")
        return progress

    def request_stop(self, reason: str) -> None:
        """Ask the workers to end."""
        self._ask("request_stop", reason)

    def abandon(self, reason: str) -> None:
        """Make the workers end without writing."""
        self._ask("abandon", reason)

    def close(self, status: str) -> int:
        """End tracking; return how many metrics were lost."""
        return int(self._ask("close", status))

    def _ask(self, method: str, *arguments: Any) -> Any:
        return ray.get(getattr(self._actor, method).remote(*arguments))
