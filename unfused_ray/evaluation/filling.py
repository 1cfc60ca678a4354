"""Fills cells in parallel, in processes of this machine."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from typing import TypeVar

import joblib

from unfused_ray import logs
from unfused_ray.embedding.cache import EmbeddingCache
from unfused_ray.evaluation.protocol import ProtocolConfig
from unfused_ray.evaluation.systems import System, families
from unfused_ray.evaluation.tasks import Task, errors_name
from unfused_ray.machine.threads import usable_cores

Filled = TypeVar("Filled")
"""The content of a cell: the scores of a system on a task."""


def embed(protocol: ProtocolConfig, cache: EmbeddingCache, task: Task, family: Sequence[System]) -> None:
    """Compute and store the vectors of rows that share them, on a task and all its folds."""
    for system, round_ in itertools.product(family, task.rounds):
        for _ in system.vectors(round_, protocol, cache):
            pass


def parts_of(missing: Sequence[tuple[Task, System]]) -> list[tuple[Task, list[System]]]:
    """Group cells that share their vectors, the longest first, so that no process is left alone with it at the end."""
    tasks = {task.name: task for task, _ in missing}
    parts = [
        (task, family)
        for task in tasks.values()
        for family in families([system for other, system in missing if other is task])
    ]
    return sorted(
        parts, key=lambda part: len(part[0].splits) * sum(each.num_networks for each in part[1]), reverse=True
    )


def fill_cells(
    missing: Sequence[tuple[Task, System]], fill: Callable[[Task, System], Filled], processes: int
) -> Iterator[dict[tuple[str, str], Filled]]:
    """Fill cells in parallel; yield the cells that share their vectors together, as soon as they are done.

    Args:
        missing: tasks and systems.
        fill: computes and stores a cell; it is sent to other processes.
        processes: number of parallel processes; 0 is one per usable core.

    Yields:
        Cells by row and task.

    Raises:
        OSError: a process was ended from outside.
    """
    parts = parts_of(missing)
    processes = min(processes or usable_cores(), max(1, len(parts)))
    parent = os.getpid() if processes > 1 else 0
    filling = joblib.Parallel(processes, return_as="generator_unordered")
    try:
        with warnings.catch_warnings():
            # loky replaces a process that has grown; readers of the table need not know.
            warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
            yield from filling(joblib.delayed(_fill_family)(fill, parent, task, family) for task, family in parts)
    except BrokenProcessPool as error:
        raise OSError(
            f"one of {processes} processes that filled cells was ended from outside, perhaps for want of memory: the "
            f"same command resumes from the cells that are finished, with fewer at a time by processes={processes - 1}"
        ) from error


def _fill_family(
    fill: Callable[[Task, System], Filled], parent: int, task: Task, family: Sequence[System]
) -> dict[tuple[str, str], Filled]:
    """Fill the cells of some rows on a task; ``parent`` is the process that waits for this one, or 0 if none does."""
    if parent:
        # On a GPU machine each process would take half a gigabyte of the first GPU for its context without using it:
        # the vectors exist already, and probes are fitted on CPUs.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        end_with(parent)
        if not logging.getLogger().handlers:
            logs.configure()
    filled = {}
    for system in family:
        with errors_name(task, system.name):
            filled[system.name, task.name] = fill(task, system)
    return filled


@cache
def end_with(parent: int) -> None:
    """End this process within a second of its parent's end: loky only checks between two cells, minutes later.

    Otherwise kill or ``ray job stop`` would leave processes behind that keep computing.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)  # all writes are atomic

    threading.Thread(target=watch, name="end with the parent", daemon=True).start()
