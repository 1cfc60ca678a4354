"""Chooses the executor of a job whose caller does not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from unfused_ray.data.parts.executor import Executor, InProcess

logger = logging.getLogger(__name__)


def default_executor(gpus_per_task: float = 0.0) -> Executor:
    """Choose tasks of a Ray cluster or, on a machine without Ray, calls in this process.

    Args:
        gpus_per_task: GPUs that each call reserves.
    """
    try:
        from unfused_ray.data.parts.ray_tasks import RayTasks
    except ImportError as error:
        logger.warning("Ray is not used: %s. All work is done in this process, part after part", error)
        return InProcess(gpus_per_task)
    return RayTasks(gpus_per_task)


@contextmanager
def keep_open() -> Iterator[None]:
    """Keep a cluster that an executor starts in this block until the block ends: starting Ray takes seconds."""
    try:
        from unfused_ray.cluster import keep_session
    except ImportError:  # a machine without Ray
        yield
        return
    with keep_session():
        yield
