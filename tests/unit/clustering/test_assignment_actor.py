"""The assignment actor gives the labels of the in-process clusterer for any number of shards, and after failures."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import ray
from ray.exceptions import RayError
from support.processes import kill_child

from unfused_ray.clustering.actor import RayClusterer, start_assignment_actor
from unfused_ray.clustering.assignment import Assignment, read_assignment
from unfused_ray.clustering.clusterer import Clusterer, ClusteringPlan, InProcessClusterer
from unfused_ray.clustering.rows import BLOCK_ROWS

pytestmark = pytest.mark.usefixtures("ray_session")

NUM_CLIPS, DIM, BATCH = 4 * BLOCK_ROWS + 100, 8, 512


def plan(folder: Path) -> ClusteringPlan:
    return ClusteringPlan(NUM_CLIPS, DIM, (12, 5), iterations=3, seed=7, assignments=str(folder), threads=1)


def push_epoch(clusterer: Clusterer, epoch: int, share: slice = slice(None)) -> int:
    """Push a share of an epoch's batches, in the epoch's order; return the number of rows."""
    embeddings = np.random.default_rng(epoch).standard_normal((NUM_CLIPS, DIM), dtype=np.float32)
    order = np.random.default_rng(100 + epoch).permutation(NUM_CLIPS)
    batches = np.split(order, range(BATCH, NUM_CLIPS, BATCH))[share]
    for clip_ids in batches:
        clusterer.push(clip_ids, embeddings[clip_ids])
    return sum(map(len, batches))


def expected(num_epochs: int, folder: Path) -> list[Assignment]:
    """Return the assignments of an undisturbed run in this process."""
    clusterer = InProcessClusterer(plan(folder))
    clusterer.restore(None, 0)
    return [clusterer.labels(epoch, 0, push_epoch(clusterer, epoch)) for epoch in range(num_epochs)]


def assert_equal(first: Assignment, second: Assignment) -> None:
    assert (first.epoch, first.health) == (second.epoch, second.health)
    for name in ("labels", "distances", "prototypes"):
        assert all(map(np.array_equal, getattr(first, name), getattr(second, name)))


@contextmanager
def assignment_actor(folder: Path, num_shards: int = 1) -> Iterator[ray.actor.ActorHandle]:
    actor = start_assignment_actor(plan(folder), num_shards)
    try:
        yield actor
    finally:
        ray.kill(actor)


@pytest.mark.parametrize(("num_shards", "gpus"), [(1, 0.0), (3, 0.0), (3, 0.5), (1, 0.5)])
def test_the_actor_lives_with_the_driver_unless_it_clusters_on_a_gpu(
    num_shards: int, gpus: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = MagicMock()
    here = ray.get_runtime_context().get_node_id()
    monkeypatch.setattr(ray, "remote", lambda actor_class: made)
    start_assignment_actor(replace(plan(tmp_path), gpus_per_shard=gpus), num_shards)
    options = made.options.call_args.kwargs
    assert options["num_cpus"] == 0
    if num_shards == 1 and gpus:
        assert (options["num_gpus"], "scheduling_strategy" in options) == (gpus, False)
    else:
        strategy = options["scheduling_strategy"]
        assert (options.get("num_gpus", 0), strategy.node_id, strategy.soft) == (0, here, False)


@pytest.mark.parametrize("num_shards", [1, 2, 5])
def test_two_workers_and_any_shards_give_the_labels_of_one_process(num_shards: int, tmp_path: Path) -> None:
    reference = expected(2, tmp_path / "reference")
    with assignment_actor(tmp_path / "actor", num_shards) as actor:

        def worker(rank: int) -> list[Assignment]:
            clusterer = RayClusterer(actor, "group", num_workers=2)
            clusterer.restore(None, 0)
            return [
                clusterer.labels(epoch, rank, push_epoch(clusterer, epoch, slice(rank, None, 2))) for epoch in range(2)
            ]

        with ThreadPoolExecutor(2) as pool:
            for found in pool.map(worker, range(2)):
                for epoch in range(2):
                    assert_equal(found[epoch], reference[epoch])
                    assert not found[epoch].labels[0].flags.writeable
    assert_equal(read_assignment(str(tmp_path / "actor/epoch-0001")), reference[1])


def test_the_barrier_waits_for_all_workers_and_a_late_call_gets_the_same(tmp_path: Path) -> None:
    with assignment_actor(tmp_path) as actor, ThreadPoolExecutor(1) as pool:
        first, second = (RayClusterer(actor, "group", num_workers=2) for _ in range(2))
        first.restore(None, 0)
        rows = push_epoch(first, 0, slice(0, 10))
        waiting = pool.submit(first.labels, 0, 0, rows)
        second.restore(None, 0)  # the group is the same: rows of the first worker stay
        more = push_epoch(second, 0, slice(10, None))
        assert not waiting.done()
        found = second.labels(0, 1, more)
        assert_equal(waiting.result(), found)
        assert_equal(first.labels(0, 0, rows), found)


def test_rows_that_did_not_arrive_stop_every_worker(tmp_path: Path) -> None:
    with assignment_actor(tmp_path) as actor, ThreadPoolExecutor(1) as pool:
        first, second = (RayClusterer(actor, "group", num_workers=2) for _ in range(2))
        for clusterer in (first, second):
            clusterer.restore(None, 0)
        rows = push_epoch(first, 0)
        waiting = pool.submit(first.labels, 0, 0, rows)
        message = f"{rows + 64} embeddings were pushed for epoch 0 but {rows} arrived"
        with pytest.raises(RuntimeError, match=message):
            second.labels(0, 1, 64)
        with pytest.raises(RuntimeError, match=message):
            waiting.result()


def test_a_new_group_replaces_an_older_one(tmp_path: Path) -> None:
    reference = expected(1, tmp_path / "reference")
    with assignment_actor(tmp_path / "actor") as actor, ThreadPoolExecutor(1) as pool:
        old = RayClusterer(actor, "first", num_workers=2)
        old.restore(None, 0)
        waiting = pool.submit(old.labels, 0, 0, push_epoch(old, 0))  # its partner is dead
        new = RayClusterer(actor, "second", num_workers=1)
        new.restore(None, 0)
        with pytest.raises(RuntimeError, match="workers first/1 have been replaced"):
            waiting.result()
        with pytest.raises(RuntimeError, match="workers first/1 have been replaced"):
            push_epoch(old, 0)
            old.flush()
        assert_equal(new.labels(0, 0, push_epoch(new, 0)), reference[0])
        stranger = RayClusterer(actor, "third", num_workers=1)
        with pytest.raises(RuntimeError, match=r"restore\(\) first"):
            stranger.labels(0, 0, 0)


@pytest.mark.parametrize("lost", ["AssignmentActor", "_ShardActor"])
def test_a_process_lost_in_mid_epoch_changes_nothing(lost: str, tmp_path: Path) -> None:
    reference = expected(3, tmp_path / "reference")
    with assignment_actor(tmp_path / "actor", num_shards=2 if lost == "_ShardActor" else 1) as actor:
        clusterer = RayClusterer(actor, "group", num_workers=1)
        clusterer.restore(None, 0)
        clusterer.labels(0, 0, push_epoch(clusterer, 0))
        push_epoch(clusterer, 1, slice(0, 12))
        clusterer.save(str(tmp_path / "checkpoint"))
        push_epoch(clusterer, 1, slice(12, 15))
        kill_child(lost).wait(60)
        with pytest.raises((RayError, RuntimeError), match=r"is unavailable|died|it was restarted: restore\(\) first"):
            clusterer.labels(1, 0, push_epoch(clusterer, 1, slice(15, None)))
        with pytest.raises(ValueError, match="is of epoch 0: it cannot begin epoch 5"):
            clusterer.restore(str(tmp_path / "checkpoint"), 5)
        clusterer.restore(str(tmp_path / "checkpoint"), 0)
        assert_equal(clusterer.labels(0, 0, 0), reference[0])
        assert_equal(clusterer.labels(1, 0, push_epoch(clusterer, 1, slice(12, None))), reference[1])
        assert_equal(clusterer.labels(2, 0, push_epoch(clusterer, 2)), reference[2])


def test_a_clusterer_travels_to_its_worker(tmp_path: Path) -> None:
    @ray.remote(num_cpus=0)
    def work(clusterer: Clusterer) -> np.ndarray:
        clusterer.restore(None, 0)
        return clusterer.labels(0, 0, push_epoch(clusterer, 0)).labels[0]

    reference = expected(1, tmp_path / "reference")
    with assignment_actor(tmp_path / "actor") as actor:
        labels = ray.get(work.remote(RayClusterer(actor, "group", num_workers=1)))
    assert np.array_equal(labels, reference[0].labels[0])
