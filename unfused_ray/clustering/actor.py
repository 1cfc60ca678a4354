"""Clustering on Ray: one assignment actor per run, its shards on the nodes, and the workers' access to it.

Every failure is handled in the same way. A lost actor, shard or worker makes calls raise. Ray Train then starts a new
group of workers, whose first call is :meth:`RayClusterer.restore`. It begins a new *generation* with an empty bank and
the checkpoint's state. Nothing of the old group can remain, because calls that it still sends are refused.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray

from unfused_ray import cluster
from unfused_ray.clustering.assignment import Assignment
from unfused_ray.clustering.bank import Bank
from unfused_ray.clustering.bank_shard import BankShard
from unfused_ray.clustering.clusterer import ClusteringPlan, InProcessClusterer
from unfused_ray.clustering.rows import BLOCK_ROWS, normalize_rows

_MAX_IN_FLIGHT = 8


def start_assignment_actor(plan: ClusteringPlan, num_shards: int) -> ray.actor.ActorHandle:
    """Start the assignment actor of a run; it reserves no CPU, because it works while the workers wait for it.

    It lives on the driver's node, because the loss of that node ends the run anyway, while the loss of another would
    end the worker group. If clustering runs on GPUs, each process that holds embeddings reserves its share of one on
    any node instead.

    The actor ends with the driver, or by ``ray.kill``.

    Args:
        plan: plan of the clustering.
        num_shards: S, number of shards; a single one lives inside the actor, several are actors spread over the nodes.
    """
    holds_gpu = num_shards == 1 and plan.gpus_per_shard > 0
    place = {"num_cpus": 0, "num_gpus": plan.gpus_per_shard} if holds_gpu else cluster.on_this_node()
    # An actor that is restarted without its state refuses every call until it is restored; only restore() itself is
    # retried.
    actor = ray.remote(AssignmentActor).options(**place, max_restarts=-1, max_task_retries=0)
    return actor.remote(plan, num_shards)


class RayClusterer:
    """A worker's :class:`Clusterer`, through the assignment actor.

    Args:
        actor: the actor from :func:`start_assignment_actor`.
        group: name of this group of workers, the same on all of them and never used before.
        num_workers: number of workers of the group.
    """

    def __init__(self, actor: ray.actor.ActorHandle, group: str, num_workers: int) -> None:
        self._actor = actor
        self._group = group
        self._num_workers = num_workers
        self._num_restores = 0
        self._in_flight: deque[ray.ObjectRef] = deque()
        self._newest: ray.ObjectRef | None = None

    def restore(self, folder: str | None, epoch: int) -> None:
        """Begin a new generation."""
        self._in_flight.clear()
        self._num_restores += 1
        ray.get(self._actor.restore.remote(self._generation, self._num_workers, folder, epoch))

    def push(self, clip_ids: np.ndarray, embeddings: np.ndarray) -> None:
        """Send embeddings; return at once if fewer than eight pushes are on their way."""
        while len(self._in_flight) >= _MAX_IN_FLIGHT:
            ray.get(self._in_flight.popleft())
        self._in_flight.append(self._actor.push.remote(self._generation, clip_ids, normalize_rows(embeddings)))

    def flush(self) -> None:
        """Wait for the pushes on their way."""
        while self._in_flight:
            ray.get(self._in_flight.popleft())

    def labels(self, epoch: int, rank: int, rows_pushed: int) -> Assignment:
        """Wait for the clustering; the arrays are read-only, one copy for all workers of a node."""
        self.flush()
        # Kept until the next one: if two threads of a process get one object and one drops its reference, the other
        # waits for ever once in some thousand times (Ray 2.60; docs/log.md, 2026-12-01).
        self._newest = ray.get(self._actor.labels.remote(self._generation, epoch, rank, rows_pushed))
        assignment: Assignment = ray.get(self._newest)
        return assignment

    def save(self, folder: str) -> None:
        """Write the state; every shard writes its own file."""
        self.flush()
        ray.get(self._actor.save.remote(self._generation, folder))

    def forget(self, before_epoch: int) -> None:
        """Delete older assignments."""
        ray.get(self._actor.forget.remote(self._generation, before_epoch))

    @property
    def _generation(self) -> str:
        return f"{self._group}/{self._num_restores}"


@dataclass
class _Round:
    """The workers' calls for one assignment; the last to arrive starts it."""

    epoch: int
    rows_pushed: dict[int, int] = field(default_factory=dict)
    complete: asyncio.Event = field(default_factory=asyncio.Event)
    result: asyncio.Task[ray.ObjectRef] | None = None


class AssignmentActor:
    """The in-process clusterer of a run, behind a barrier for its workers.

    It collects small pushes into blocks. It does all work on the bank in sequence, in a thread, so that the actor can
    answer meanwhile.
    """

    def __init__(self, plan: ClusteringPlan, num_shards: int) -> None:
        self._clusterer = InProcessClusterer(plan, lambda: _build_bank(plan, num_shards))
        self._working = asyncio.Lock()
        self._generation = ""
        self._retired: set[str] = set()
        self._num_workers = 0
        self._restored: asyncio.Task[None] | None = None
        self._buffer: list[tuple[np.ndarray, np.ndarray]] = []
        self._round: _Round | None = None
        self._published: tuple[int, ray.ObjectRef] | None = None

    @ray.method(max_task_retries=-1)  # its caller must not fail because the actor is still starting
    async def restore(self, generation: str, num_workers: int, folder: str | None, epoch: int) -> None:
        """Begin a generation on the call of its first worker; the calls of the others wait for it to begin."""
        if generation != self._generation:
            if generation in self._retired:
                raise RuntimeError(_stale(generation))
            self._retired.add(self._generation)
            self._generation, self._num_workers = generation, num_workers
            if self._round is not None:
                self._round.complete.set()  # wakes the calls that wait there, so that they are refused
            self._buffer, self._round, self._published = [], None, None
            self._restored = asyncio.create_task(self._work(generation, self._clusterer.restore, folder, epoch))
        assert self._restored is not None
        await self._restored

    async def push(self, generation: str, clip_ids: np.ndarray, rows: np.ndarray) -> None:
        """Store normalised float16 rows."""
        self._check(generation)
        self._buffer.append((clip_ids, rows))
        if sum(len(ids) for ids, _ in self._buffer) >= BLOCK_ROWS:
            await self._forward(generation)

    async def labels(self, generation: str, epoch: int, rank: int, rows_pushed: int) -> ray.ObjectRef:
        """Wait for all workers and for the clustering; return a reference to its :class:`Assignment`."""
        self._check(generation)
        current = self._clusterer.current
        if current is not None and epoch == current.epoch:
            return self._publish(current)
        if self._round is None:
            self._round = _Round(epoch)
        waiting = self._round
        if epoch != waiting.epoch:
            raise RuntimeError(f"rank {rank} asks for epoch {epoch} while others wait for epoch {waiting.epoch}")
        waiting.rows_pushed[rank] = rows_pushed
        if len(waiting.rows_pushed) == self._num_workers and waiting.result is None:
            waiting.result = asyncio.create_task(self._cluster(generation, epoch, sum(waiting.rows_pushed.values())))
            waiting.complete.set()
        await waiting.complete.wait()
        self._check(generation)
        assert waiting.result is not None
        return await waiting.result

    async def save(self, generation: str, folder: str) -> None:
        """Write the bank and the current assignment."""
        await self._forward(generation)
        await self._work(generation, self._clusterer.save, folder)

    async def forget(self, generation: str, before_epoch: int) -> None:
        """Delete older assignments."""
        await self._work(generation, self._clusterer.forget, before_epoch)

    async def _cluster(self, generation: str, epoch: int, rows_pushed: int) -> ray.ObjectRef:
        await self._forward(generation)
        assignment = await self._work(generation, self._clusterer.labels, epoch, 0, rows_pushed)
        self._round = None
        return self._publish(assignment)

    def _publish(self, assignment: Assignment) -> ray.ObjectRef:
        """Return a reference to the assignment's only copy in the object store."""
        if self._published is None or self._published[0] != assignment.epoch:
            self._published = (assignment.epoch, ray.put(assignment))
        return self._published[1]

    async def _forward(self, generation: str) -> None:
        """Push the collected rows to the bank."""
        self._check(generation)
        collected, self._buffer = self._buffer, []
        if collected:
            clip_ids, rows = (np.concatenate(parts) for parts in zip(*collected, strict=True))
            await self._work(generation, self._clusterer.push_rows, clip_ids, rows)

    async def _work(self, generation: str, function: Callable[..., Any], *arguments: Any) -> Any:
        async with self._working:
            self._check(generation)  # another generation may have begun while this call waited
            return await asyncio.to_thread(function, *arguments)

    def _check(self, generation: str) -> None:
        if generation in self._retired:
            raise RuntimeError(_stale(generation))
        if generation != self._generation:
            raise RuntimeError(f"the assignment actor knows no workers {generation}, it was restarted: restore() first")


def _stale(generation: str) -> str:
    return f"workers {generation} have been replaced by a newer group: their calls are refused"


class _RemoteShards:
    """Shards that are actors; a lost one is not restarted, so that every call to it raises."""

    def __init__(self, plan: ClusteringPlan, num_shards: int) -> None:
        # Each shard is built where it lives; all of them end when the bank that holds this list does.
        options = {"num_cpus": 0, "num_gpus": plan.gpus_per_shard}
        actor = ray.remote(_ShardActor).options(**options, scheduling_strategy="SPREAD")
        self._actors = [actor.remote(plan, shard, num_shards) for shard in range(num_shards)]

    def __len__(self) -> int:
        return len(self._actors)

    def broadcast(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of every shard with the same arguments, which travel once to each node."""
        shared = [ray.put(argument) for argument in arguments]
        return _results([actor.call.remote(method, *shared) for actor in self._actors])

    def scatter(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call a method of every shard, each with its own arguments."""
        return _results([actor.call.remote(method, *own) for actor, own in zip(self._actors, arguments, strict=True)])


def _results(references: list[ray.ObjectRef]) -> list[Any]:
    # ray.get would warn that it blocks an async actor, though this runs in a thread of its own.
    return [reference.future().result() for reference in references]


class _ShardActor:
    """A :class:`BankShard` in a process of its own."""

    def __init__(self, plan: ClusteringPlan, shard: int, num_shards: int) -> None:
        self._shard: BankShard = plan.build_shard(shard, num_shards)

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the shard."""
        return getattr(self._shard, method)(*arguments)


def _build_bank(plan: ClusteringPlan, num_shards: int) -> Bank:
    if num_shards == 1:
        return plan.build_bank()
    return Bank(_RemoteShards(plan, num_shards), plan.num_clips, plan.dim)
