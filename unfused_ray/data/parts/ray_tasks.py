"""Runs a function on many arguments as a bounded number of Ray tasks."""

from __future__ import annotations

import logging
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import ray

from unfused_ray import cluster
from unfused_ray.data.parts.executor import TaskEndedError

T = TypeVar("T")

logger = logging.getLogger(__name__)

# On a node that answers, a killed task has ended within a second; a lost node must not hold up the caller.
KILL_SECONDS = 10.0
_MAX_MESSAGE = 300
_ENDED_FROM_OUTSIDE = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.LocalRayletDiedError,
)


class RayTasks:
    """Calls the function in Ray tasks of one CPU each; at most two tasks a CPU are in flight.

    A task whose process dies, or which raises an ``OSError`` (an object store did not answer), is retried up to three
    times. If its process dies in the last try too, a ``TaskEndedError`` is raised. When the caller stops, tasks that
    are still running are killed, so their writes must be atomic. No task writes after that, unless a warning says that
    it may.

    Args:
        gpus_per_task: GPUs that each task reserves.
    """

    def __init__(self, gpus_per_task: float = 0.0) -> None:
        self._gpus_per_task = gpus_per_task

    def open(self) -> AbstractContextManager[None]:
        """Join or start a cluster."""
        return cluster.session()

    @contextmanager
    def run(
        self, function: Callable[..., T], arguments: Iterable[tuple[Any, ...]]
    ) -> Iterator[Iterator[tuple[int, T]]]:
        """Run a task for each argument."""
        name = getattr(function, "__name__", type(function).__name__)
        task = _call.options(name=name, num_gpus=self._gpus_per_task)
        running: dict[ray.ObjectRef, int] = {}
        try:
            yield _results(partial(task.remote, function), arguments, running)
        finally:
            _kill(running)

    def share(self, value: T) -> Callable[[], T]:
        """Put the value into Ray's object store."""
        return _Shared(ray.put(value))

    def refuse_impossible(self, paths: Mapping[str, str]) -> None:
        """Refuse paths of one machine on a cluster of several, and more GPUs than the cluster has."""
        cluster.refuse_local_paths({field: (path,) for field, path in paths.items()})
        if self._gpus_per_task > (gpus := cluster.capacity().get("GPU", 0.0)):
            raise ValueError(f"gpus_per_task={self._gpus_per_task:g} must not exceed the cluster's {gpus:g} GPUs")


@dataclass(frozen=True)
class _Shared(Generic[T]):
    """Fetches a value from Ray's object store."""

    reference: ray.ObjectRef

    def __call__(self) -> T:
        return ray.get(self.reference)


@ray.remote(num_cpus=1, max_retries=3, retry_exceptions=[OSError])
def _call(function: Callable[..., T], *values: Any) -> T:
    return function(*values)


def _results(
    start: Callable[..., ray.ObjectRef], arguments: Iterable[tuple[Any, ...]], running: dict[ray.ObjectRef, int]
) -> Iterator[tuple[int, Any]]:
    in_flight = max(2, 2 * int(cluster.capacity().get("CPU", 1)))
    numbered = enumerate(arguments)
    while True:
        while len(running) < in_flight and (following := next(numbered, None)) is not None:
            number, values = following
            running[start(*values)] = number
        if not running:
            return
        (done,), _ = ray.wait(list(running), num_returns=1)
        number = running.pop(done)
        try:
            result = ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            raise TaskEndedError(_failure(error)) from error
        yield number, result


def _failure(error: ray.exceptions.RayError) -> str:
    """Describe why Ray gave up a task, and a remedy."""
    said = f"{type(error).__name__}: {textwrap.shorten(str(error), _MAX_MESSAGE, placeholder=' …')}"
    if isinstance(error, _ENDED_FROM_OUTSIDE):
        return (
            f"the process of a task was ended from outside again and again, perhaps for want of memory ({said}): "
            "larger nodes, or smaller shards, help there"
        )
    return f"Ray could not run a task ({said})"


def _kill(running: Iterable[ray.ObjectRef]) -> None:
    """Kill tasks and wait for their end, ``KILL_SECONDS`` at most."""
    deadline = time.monotonic() + KILL_SECONDS
    while unfinished := _unfinished(running):
        if time.monotonic() > deadline:
            logger.warning(
                "%d tasks have not ended %g s after Ray was to kill them: they may still write",
                len(unfinished),
                KILL_SECONDS,
            )
            return
        for reference in unfinished:
            # Killed, not interrupted: if an interrupt arrives during a callback from libsndfile, CFFI drops it and
            # libsndfile sees the end of the file. The task would continue, and set a good clip aside.
            ray.cancel(reference, force=True)


def _unfinished(running: Iterable[ray.ObjectRef]) -> list[ray.ObjectRef]:
    """Return the tasks that have no result after a second.

    Waiting first serves two purposes. Ray 2.60 aborts the whole driver if a task is cancelled while its end is being
    recorded, so tasks about to end are given time to do so. And a cancel returns before its task has ended, and can be
    lost: this happened to one of 900 tasks.
    """
    references = list(running)
    return ray.wait(references, num_returns=len(references), timeout=1.0)[1] if references else []
