"""The interface of a run's clustering, and the clusterer for a single worker, in that worker's process."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from unfused_ray import storage
from unfused_ray.clustering.assignment import MANIFEST, Assignment, read_assignment, write_assignment
from unfused_ray.clustering.bank import Bank, LocalShards
from unfused_ray.clustering.bank_shard import BankShard
from unfused_ray.clustering.rows import normalize_rows
from unfused_ray.machine.threads import usable_cores

ASSIGNMENT = "assignment"
"""Folder of the current assignment within a saved state."""
_EPOCH = re.compile(r"epoch-(\d+)")


class Clusterer(Protocol):
    """One worker's access to the clustering of a run. Every failure raises; :meth:`restore` begins again."""

    def restore(self, folder: str | None, epoch: int) -> None:
        """Begin before or in an epoch, with a saved state or an empty bank. Every worker of a group calls it first.

        Raises:
            ValueError: the folder is of another run or epoch.
        """
        ...

    def push(self, clip_ids: np.ndarray, embeddings: np.ndarray) -> None:
        """Receive embeddings ``(n, D)`` of clips ``(n,)`` int64, each clip at most once between two assignments."""
        ...

    def flush(self) -> None:
        """Wait until everything pushed has arrived."""
        ...

    def labels(self, epoch: int, rank: int, rows_pushed: int) -> Assignment:
        """Return the assignment that ``epoch`` trains on. Every worker calls it; further calls give the same result.

        Args:
            epoch: epoch that is about to begin, or into which a state was restored.
            rank: rank of this worker.
            rows_pushed: number of rows that this worker has pushed since the last assignment or restore.

        Raises:
            RuntimeError: not all pushed embeddings have arrived, or a clip was never pushed.
        """
        ...

    def save(self, folder: str) -> None:
        """Write the bank and the current assignment. One worker calls it, after all have flushed."""
        ...

    def forget(self, before_epoch: int) -> None:
        """Delete the written assignments of all epochs before this one."""
        ...


@dataclass(frozen=True)
class ClusteringPlan:
    """Size and settings of the clustering before each epoch."""

    num_clips: int
    """N, number of clips: clip_ids are 0 … N - 1."""
    dim: int
    """D, size of an embedding."""
    num_clusters: tuple[int, ...]
    """K, number of clusters, of each head; at most N."""
    iterations: int
    """Number of Lloyd iterations of an assignment."""
    seed: int
    """Seed of the starts."""
    assignments: str
    """Folder of the assignments, by path or URI; they are called ``epoch-0000`` and so on."""
    threads: int = 0
    """Number of threads of each process that holds embeddings; 0 takes all cores that it may use on its node."""
    gpus_per_shard: float = 0.0
    """Number of GPUs that each of these processes reserves, and clusters on; 0 clusters by oneDNN on CPUs."""

    def build_shard(self, shard: int, num_shards: int) -> BankShard:
        """Build an empty shard in this process.

        Raises:
            ValueError: it should cluster on a GPU, and faiss sees none here.
            MissingExtraError: it should cluster on a GPU, and faiss is not installed.
        """
        nearest = None
        if self.gpus_per_shard:
            from unfused_ray.clustering.nearest import FaissGpu  # here, because it imports torch

            nearest = FaissGpu()
        threads = self.threads or usable_cores()
        return BankShard(shard, num_shards, self.num_clips, self.dim, threads, nearest)

    def build_bank(self) -> Bank:
        """Build an empty bank in this process."""
        return Bank(LocalShards([self.build_shard(0, 1)]), self.num_clips, self.dim)


class InProcessClusterer:
    """The clusterer of one worker, in its process; the assignment actor contains one, behind a barrier.

    Args:
        plan: plan of the clustering.
        build_bank: builds an empty bank; by default one in this process.
    """

    def __init__(self, plan: ClusteringPlan, build_bank: Callable[[], Bank] | None = None) -> None:
        self.plan = plan
        self.current: Assignment | None = None
        self._build_bank = build_bank or plan.build_bank
        self._restored: Bank | None = None
        self._next_epoch = 0
        self._arrived = 0

    def restore(self, folder: str | None, epoch: int) -> None:
        """Begin with a new bank."""
        self._restored = None  # frees the old embeddings before new ones need the memory
        bank = self._build_bank()
        self.current, self._next_epoch, self._arrived = None, epoch, 0
        if folder is not None:
            bank.load(folder)
            saved = storage.join(folder, ASSIGNMENT)
            if storage.exists(storage.join(saved, MANIFEST)):
                self.current = read_assignment(saved)
                self._next_epoch = self.current.epoch + 1
                if epoch not in (self.current.epoch, self._next_epoch):
                    raise ValueError(f"{folder} is of epoch {self.current.epoch}: it cannot begin epoch {epoch}")
        self._restored = bank

    def push(self, clip_ids: np.ndarray, embeddings: np.ndarray) -> None:
        """Store embeddings."""
        self.push_rows(clip_ids, normalize_rows(embeddings))

    def push_rows(self, clip_ids: np.ndarray, rows: np.ndarray) -> None:
        """Store rows that are already normalised and float16."""
        self._bank.push(clip_ids, rows)
        self._arrived += len(rows)

    def flush(self) -> None:
        """Return at once: nothing is on its way."""

    def labels(self, epoch: int, rank: int, rows_pushed: int) -> Assignment:
        """Cluster all clips; ``rows_pushed`` counts the rows of all workers."""
        if self.current is not None and epoch == self.current.epoch:
            return self.current
        if epoch != self._next_epoch:
            raise RuntimeError(f"the next assignment is of epoch {self._next_epoch}, epoch {epoch} was asked for")
        if rows_pushed != self._arrived:
            raise RuntimeError(
                f"{rows_pushed} embeddings were pushed for epoch {epoch} but {self._arrived} arrived: "
                "restore the newest checkpoint"
            )
        plan = self.plan
        assignment = self._bank.cluster(epoch, plan.num_clusters, plan.iterations, plan.seed, self.current)
        write_assignment(storage.join(plan.assignments, f"epoch-{epoch:04d}"), assignment)
        self._bank.begin_epoch()
        self.current, self._next_epoch, self._arrived = assignment, epoch + 1, 0
        return assignment

    def save(self, folder: str) -> None:
        """Write the bank and the current assignment."""
        self._bank.save(folder)
        if self.current is not None:
            write_assignment(storage.join(folder, ASSIGNMENT), self.current)

    def forget(self, before_epoch: int) -> None:
        """Delete older assignments."""
        for folder in storage.list_folders(self.plan.assignments):
            epoch = _EPOCH.fullmatch(storage.name(folder))
            if epoch and int(epoch[1]) < before_epoch:
                storage.delete(folder)

    @property
    def _bank(self) -> Bank:
        if self._restored is None:
            raise RuntimeError("the clusterer has no state: call restore() first")
        return self._restored
