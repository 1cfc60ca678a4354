"""Fills cells side by side, in processes of this machine."""

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
from unfused_ray.evaluation.tasks import Task
from unfused_ray.machine.threads import usable_cores

Filled = TypeVar("Filled")
"""The scores of a system on a task: a cell of a table."""


def embed(protocol: ProtocolConfig, cache: EmbeddingCache, task: Task, family: Sequence[System]) -> None:
    """Make and keep the vectors of rows that share them, on a task and all its folds."""
    for system, round_ in itertools.product(family, task.rounds):
        for _ in system.vectors(round_, protocol, cache):
            pass


def parts_of(missing: Sequence[tuple[Task, System]]) -> list[tuple[Task, list[System]]]:
    """Cells that share their vectors, the longest first: a process may be left alone with it at the end."""
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
    missing: Sequence[tuple[Task, System]], fill: Callable[[Task, System], Filled], processes: int = 0
) -> Iterator[dict[tuple[str, str], Filled]]:
    """Fill cells side by side, and give them as they are done: those that share their vectors at a time.

    Args:
        missing: tasks and systems.
        fill: computes and keeps a cell; it travels to other processes.
        processes: at a time; 0 is one per core that may be used.

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
            # Such a process is replaced when it has grown, which is no news for who reads the table.
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
    """Fill the cells of some rows on a task; ``parent`` is the process that waits for this one, 0 if none does."""
    if parent:
        # Each process of a GPU machine would take half a gigabyte of the first GPU for its context, to compute nothing
        # there: vectors are made by then, and probes are fitted on processors.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        end_with(parent)
        if not logging.getLogger().handlers:
            logs.configure()
    return {(system.name, task.name): fill(task, system) for system in family}


@cache
def end_with(parent: int) -> None:
    """Let this process end within a second of its parent: loky asks for it between two cells alone, minutes later.

    Whoever stops a job, kill or ``ray job stop``, would leave processes behind that go on computing.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)  # all writes are atomic

    threading.Thread(target=watch, name="end with the parent", daemon=True).start()
