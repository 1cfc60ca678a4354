"""A bounded number of Ray tasks over any number of arguments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import ray

from unfused_ray import cluster


def run_bounded(task: Any, arguments: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
    """Run a Ray task on each of ``arguments``, made as they are needed; at most two tasks a CPU are in flight.

    Yields:
        The number of an argument and its result, as they are done. What is still running when the caller stops, or
        when a task fails, is cancelled.

    Raises:
        Exception: what a task raised, itself.
    """
    in_flight = max(2, 2 * int(cluster.capacity().get("CPU", 1)))
    running: dict[ray.ObjectRef, int] = {}
    numbered = enumerate(arguments)
    try:
        while True:
            while len(running) < in_flight and (following := next(numbered, None)) is not None:
                index, values = following
                running[task.remote(*values)] = index
            if not running:
                return
            done, _ = ray.wait(list(running), num_returns=1)
            try:
                result = ray.get(done[0])
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            yield running.pop(done[0]), result
    finally:
        for reference in running:
            ray.cancel(reference)
