"""A bounded number of Ray tasks over any number of arguments."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import ray

from unfused_ray import cluster

logger = logging.getLogger(__name__)

# A killed task of a node that answers has ended within a second; a lost node must not hold the caller.
KILL_SECONDS = 10.0


@contextmanager
def run_bounded(task: Any, arguments: Iterable[tuple[Any, ...]]) -> Iterator[Iterator[tuple[int, Any]]]:
    """Run a Ray task on each of ``arguments``, made as they are needed; at most two tasks a CPU are in flight.

    Gives pairs of the number of an argument and its result, as they are done. What still runs at the end of the
    context is killed: its writes must be atomic, and unless a warning says so none comes later.

    Raises:
        Exception: what a task raised, itself.
    """
    running: dict[ray.ObjectRef, int] = {}
    try:
        yield _results(task, arguments, running)
    finally:
        deadline = time.monotonic() + KILL_SECONDS
        while unfinished := _unfinished(running):
            if time.monotonic() > deadline:
                logger.warning(
                    "%d tasks have not ended %g s after they were to be killed: they may still write",
                    len(unfinished),
                    KILL_SECONDS,
                )
                break
            for reference in unfinished:
                # Killed, not interrupted: where the interrupt comes while libsndfile calls back, CFFI drops it and
                # libsndfile sees an end of the file. The task would go on, and set a good clip aside.
                ray.cancel(reference, force=True)


@contextmanager
def run_on_ray(
    function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]
) -> Iterator[Iterator[tuple[int, Any]]]:
    """:func:`run_bounded` of a function, on one CPU each; tasks whose storage does not answer are tried again."""
    task = ray.remote(num_cpus=1, max_retries=3, retry_exceptions=[OSError])(function)
    with run_bounded(task, arguments) as results:
        yield results


def _results(
    task: Any, arguments: Iterable[tuple[Any, ...]], running: dict[ray.ObjectRef, int]
) -> Iterator[tuple[int, Any]]:
    in_flight = max(2, 2 * int(cluster.capacity().get("CPU", 1)))
    numbered = enumerate(arguments)
    while True:
        while len(running) < in_flight and (following := next(numbered, None)) is not None:
            index, values = following
            running[task.remote(*values)] = index
        if not running:
            return
        (done,), _ = ray.wait(list(running), num_returns=1)
        index = running.pop(done)
        try:
            result = ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        yield index, result


def _unfinished(running: Iterable[ray.ObjectRef]) -> list[ray.ObjectRef]:
    """Those without a result after a second.

    Ray 2.60 aborts the whole driver where a task is cancelled while its end is noted, so tasks that are about to end,
    as others like them just did, are let. And a cancel returns before its task has ended, and can be lost: seen for one
    of 900 tasks.
    """
    references = list(running)
    return ray.wait(references, num_returns=len(references), timeout=1.0)[1] if references else []
