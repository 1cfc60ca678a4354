"""Checkpoints from the workers' side: when one is due, and how all workers write it together."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from unfused_ray import storage
from unfused_ray.config import CheckpointConfig
from unfused_ray.labels.source import LabelSource
from unfused_ray.runs.checkpoints import BANK, CheckpointStore, Position
from unfused_ray.runs.run import Run
from unfused_ray.training.worker.collectives import Collectives
from unfused_ray.training.worker.device import snapshot
from unfused_ray.training.worker.state import TrainingState


class Checkpointer:
    """Writes the checkpoints of a run.

    Args:
        config: settings of the checkpoints.
        run_uri: folder of the run.
        state: state to save.
        labels: label source whose state is saved too; None if the run has none.
        collectives: collectives of the worker group.
        in_thread: True to write while the training continues; on CPUs this would take a core from it.
    """

    def __init__(
        self,
        config: CheckpointConfig,
        run_uri: str,
        state: TrainingState,
        labels: LabelSource | None,
        collectives: Collectives,
        in_thread: bool,
    ) -> None:
        self._config, self._run_uri, self._state = config, run_uri, state
        self._labels, self._collectives = labels, collectives
        self._store = CheckpointStore(run_uri)
        self._last = time.perf_counter()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint") if in_thread else None
        self._writing: Future[None] | None = None

    def is_due(self) -> bool:
        """Return True once when the time between checkpoints has passed; the joint vote may come a step later."""
        due = time.perf_counter() - self._last > 60 * self._config.every_minutes
        if due:
            self._last = time.perf_counter()
        return due

    def is_wanted(self) -> bool:
        """Return True if an epoch that ends now is to write a checkpoint; the first worker's clock decides.

        All workers call it together.
        """
        if not self._config.min_minutes:
            return True
        passed = time.perf_counter() - self._last >= 60 * self._config.min_minutes
        return bool(self._collectives.gather(torch.tensor([int(passed)]))[0])

    def save(self, position: Position, details: dict[str, Any]) -> None:
        """Write a checkpoint; all workers call it at the same step, after they have flushed their embeddings.

        If the training runs on a GPU, the state is only copied here, and written while the training continues.

        Args:
            position: position of the run.
            details: ``history`` of the finished epochs, and anything else that JSON can hold.

        Raises:
            Exception: the previous checkpoint could not be written.
        """
        self._collectives.barrier()  # now every worker's embeddings have arrived
        if self._collectives.rank == 0:
            self.wait()
            folder = self._store.begin(position)
            if self._labels is not None:
                self._labels.save(storage.join(folder, BANK))
            if self._pool is None:
                self._write(position, self._state.tensors, details)
            else:
                taken = snapshot(self._state.tensors())
                self._writing = self._pool.submit(self._write, position, taken, copy.deepcopy(details))
        self._collectives.barrier()
        self._last = time.perf_counter()

    def wait(self) -> None:
        """Wait until the newest checkpoint is written.

        Raises:
            Exception: it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Wait for the newest checkpoint, like :meth:`wait`, and end the thread."""
        try:
            self.wait()
        finally:
            if self._pool is not None:
                self._pool.shutdown()

    def _write(
        self, position: Position, tensors: Callable[[], Mapping[str, Mapping[str, Tensor]]], details: dict[str, Any]
    ) -> None:
        self._store.commit(position, tensors(), details, has_bank=self._labels is not None)
        Run(self._run_uri).write_history(details["history"])
        self._prune(position)

    def _prune(self, newest: Position) -> None:
        """Delete checkpoints and assignments that neither the settings nor a kept checkpoint need."""
        oldest = min(position.epoch for position in self._store.prune(newest, self._config.keep))
        if self._labels is not None:
            self._labels.forget(min(oldest, newest.epoch - self._config.keep_assignments))
