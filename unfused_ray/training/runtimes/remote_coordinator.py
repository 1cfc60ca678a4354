"""The coordinator as a Ray actor, and its client for other processes.

Ray Train and Ray Data hold a :class:`RemoteCoordinator` in actors of their own, so this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import ray

from unfused_ray import cluster
from unfused_ray.tracking.mlflow import TrackedRun
from unfused_ray.tracking.prometheus import Gauges
from unfused_ray.training.coordinator import Coordinator, CoordinatorClient, RunProgress

# A restarted coordinator learns again the position, from workers and stream, and a request to stop, from the driver.
# Messages and the count of failures begin anew.
_OUTLIVES_ITS_PROCESS = {"max_restarts": -1, "max_task_retries": -1}
_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")


class CoordinatorActor(Coordinator):
    """A coordinator in an actor, which also exports the metrics of a tracked run to Prometheus."""

    def __init__(self, tracked: TrackedRun | None, first_step: int) -> None:
        super().__init__(tracked, first_step)
        self._gauges = Gauges(tracked.name) if tracked else None
        self._was_restarted = ray.get_runtime_context().was_current_actor_reconstructed

    def report(self, progress: RunProgress, metrics: Mapping[str, float] | None = None) -> str:
        """Store the progress, track the metrics and export them."""
        reason = super().report(progress, metrics)
        if metrics and self._gauges:
            self._gauges.set({**metrics, "step": progress.step, "damaged_clips": progress.damaged_clips})
        return reason

    def is_first_attempt(self) -> bool:
        """Return True if it is certain that no worker group has started yet."""
        return super().is_first_attempt() and not self._was_restarted


def _asked(
    method: Callable[Concatenate[Any, _Arguments], _Answer],
) -> Callable[Concatenate[RemoteCoordinator, _Arguments], _Answer]:
    """Return a method that calls the actor's method of the same name and waits for its answer."""

    @wraps(method)
    def call(self: RemoteCoordinator, *arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Answer:
        return cast(_Answer, ray.get(getattr(self.actor, method.__name__).remote(*arguments, **named)))

    return call


class RemoteCoordinator:
    """The methods of a :class:`Coordinator`, each of which calls an actor.

    Args:
        actor: handle of a :class:`CoordinatorActor`.
    """

    def __init__(self, actor: ray.actor.ActorHandle) -> None:
        self.actor = actor
        self._pending: list[ray.ObjectRef] = []
        self._stop = ""

    set_execution = _asked(Coordinator.set_execution)
    execution = _asked(Coordinator.execution)
    begin_attempt = _asked(Coordinator.begin_attempt)
    is_first_attempt = _asked(Coordinator.is_first_attempt)
    note_failure = _asked(Coordinator.note_failure)
    failed_at = _asked(Coordinator.failed_at)
    progress = _asked(Coordinator.progress)
    request_stop = _asked(Coordinator.request_stop)
    abandon = _asked(Coordinator.abandon)
    close = _asked(Coordinator.close)

    def note(self, text: str, rank: int | None = None) -> None:
        """Send a message, without waiting for an answer."""
        self.actor.note.remote(text, rank)

    def report(self, progress: RunProgress, metrics: Mapping[str, float] | None = None) -> str:
        """Send a report; return the newest answer to an earlier one, so that training does not wait."""
        self._pending.append(self.actor.report.remote(progress, metrics))
        ready, self._pending = ray.wait(self._pending, num_returns=len(self._pending), timeout=0)
        for answer in ray.get(ready):
            self._stop = answer
        return self._stop


def start_coordinator(tracked: TrackedRun | None, first_step: int) -> tuple[CoordinatorClient, ray.actor.ActorHandle]:
    """Start a coordinator's actor on this node; return a :class:`RemoteCoordinator`, and the actor, for ending it."""
    options = {**_OUTLIVES_ITS_PROCESS, **cluster.on_this_node()}
    actor = ray.remote(CoordinatorActor).options(**options).remote(tracked, first_step)
    return RemoteCoordinator(actor), actor
