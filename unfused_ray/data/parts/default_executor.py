"""Chooses the executor of a job whose caller has not chosen one."""

from __future__ import annotations

import logging
import os
import sys

from unfused_ray.data.parts.executor import Executor, InThisProcess

logger = logging.getLogger(__name__)


def default_executor(gpus_per_task: float = 0.0, is_small: bool = False) -> Executor:
    """Choose tasks of a Ray cluster or, on a machine without Ray, calls in this process.

    Args:
        gpus_per_task: GPUs that each call reserves.
        is_small: the work takes less time than Ray takes to start, so it is done in this process unless a cluster is
            already there.
    """
    if is_small and not os.environ.get("RAY_ADDRESS") and not _has_started():
        return InThisProcess(gpus_per_task)
    try:
        from unfused_ray.data.parts.ray_tasks import RayTasks
    except ImportError as error:
        logger.warning("Ray is not used: %s. All work is done in this process, part after part", error)
        return InThisProcess(gpus_per_task)
    return RayTasks(gpus_per_task)


def _has_started() -> bool:
    """Return True if Ray has started in this process; do not spend a second on importing it to find out."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()
