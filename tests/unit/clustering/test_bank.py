"""The embedding bank and the in-process clusterer: same bits for any shards, order and restarts; health metrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unfused_ray.clustering.assignment import Assignment, read_assignment, write_assignment
from unfused_ray.clustering.bank import Bank, LocalShards
from unfused_ray.clustering.bank_shard import BankShard
from unfused_ray.clustering.clusterer import ClusteringPlan, InProcessClusterer
from unfused_ray.clustering.health import signs_of_collapse
from unfused_ray.clustering.rows import BLOCK_ROWS, normalize_rows
from unfused_ray.config import HealthConfig

NUM_CLIPS, DIM = 5 * BLOCK_ROWS + 100, 8
CLUSTERS = (12, 5)


def embeddings(seed: int = 0, num_clips: int = NUM_CLIPS) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num_clips, DIM)).astype(np.float32)


def build(num_shards: int = 1, num_clips: int = NUM_CLIPS) -> Bank:
    shards = [BankShard(shard, num_shards, num_clips, DIM, threads=1) for shard in range(num_shards)]
    return Bank(LocalShards(shards), num_clips, DIM)


def filled(num_shards: int = 1, num_clips: int = NUM_CLIPS) -> Bank:
    bank = build(num_shards, num_clips)
    bank.push(np.arange(num_clips), normalize_rows(embeddings(num_clips=num_clips)))
    return bank


def plan(folder: Path, **changes: object) -> ClusteringPlan:
    values = {"num_clips": NUM_CLIPS, "dim": DIM, "num_clusters": CLUSTERS, "iterations": 3, "seed": 7, "threads": 1}
    return ClusteringPlan(**{**values, "assignments": str(folder / "assignments"), **changes})


def assert_equal(first: Assignment, second: Assignment) -> None:
    assert (first.epoch, first.health) == (second.epoch, second.health)
    for name in ("labels", "distances", "prototypes"):
        for a, b in zip(getattr(first, name), getattr(second, name), strict=True):
            assert a.dtype == b.dtype
            assert np.array_equal(a, b)


@given(num_shards=st.integers(1, 7), seed=st.integers(0, 2**20), num_pushes=st.integers(1, 40))
@settings(max_examples=15)
def test_shards_and_arrival_order_change_no_bit(num_shards: int, seed: int, num_pushes: int) -> None:
    rng = np.random.default_rng(seed)
    bank = build(num_shards)
    for clip_ids in np.array_split(rng.permutation(NUM_CLIPS), num_pushes):
        bank.push(clip_ids, normalize_rows(embeddings()[clip_ids]))
    assert_equal(bank.cluster(0, CLUSTERS, 3, seed=7), filled().cluster(0, CLUSTERS, 3, seed=7))


def test_heads_epochs_and_seeds_differ() -> None:
    bank = filled()
    first = bank.cluster(0, (12, 12), 3, seed=7)
    assert not np.array_equal(first.labels[0], first.labels[1])
    for other in (bank.cluster(1, (12,), 3, seed=7), bank.cluster(0, (12,), 3, seed=8)):
        assert not np.array_equal(first.labels[0], other.labels[0])
    assert [prototypes.shape for prototypes in first.prototypes] == [(12, DIM), (12, DIM)]


def test_a_clip_not_seen_keeps_its_embedding_and_goes_to_the_nearest_new_centroid() -> None:
    bank = filled()
    bank.cluster(0, (12,), 3, seed=7)
    bank.begin_epoch()
    newer = embeddings(seed=1)
    seen = np.arange(NUM_CLIPS) % 3 > 0
    bank.push(np.flatnonzero(seen), normalize_rows(newer[seen]))
    found = bank.cluster(1, (12,), 3, seed=7)
    rows = normalize_rows(np.where(seen[:, None], newer, embeddings())).astype(np.float64)
    similarities = rows @ found.prototypes[0].T
    assert found.health["unseen_clips"] == (~seen).sum()
    assert (similarities.max(axis=1) - similarities[np.arange(NUM_CLIPS), found.labels[0]]).max() < 1e-6


@pytest.mark.parametrize("num_shards", [1, 3])
def test_a_clip_never_pushed_is_named(num_shards: int) -> None:
    bank = build(num_shards)
    missing = np.array([3, BLOCK_ROWS + 1, NUM_CLIPS - 1])
    present = np.setdiff1d(np.arange(NUM_CLIPS), missing)
    bank.push(present, normalize_rows(embeddings()[present]))
    with pytest.raises(RuntimeError, match=rf"3 of {NUM_CLIPS} clips .*\[3, {BLOCK_ROWS + 1}, {NUM_CLIPS - 1}\]"):
        bank.cluster(0, (4,), 1, seed=0)


def test_bad_embeddings_are_counted_and_harm_nobody() -> None:
    bank = filled(2)
    before = bank.gather(np.array([10, 20]))
    bad = np.array([[np.nan] + [1.0] * (DIM - 1), [np.inf] + [0.0] * (DIM - 1), [0.0] * DIM])
    bank.push(np.array([10, 20, 30]), normalize_rows(bad))
    assert np.array_equal(bank.gather(np.array([10, 20])), before)
    found = bank.cluster(0, (4,), 2, seed=0)
    assert (found.health["non_finite_embeddings"], found.health["zero_embeddings"]) == (2, 1)
    assert (found.labels[0][30], found.distances[0][30]) == (0, 1)
    bank.begin_epoch()
    assert bank.cluster(1, (4,), 2, seed=0).health["non_finite_embeddings"] == 0


def test_pushes_that_do_not_fit_are_refused() -> None:
    bank = build()
    with pytest.raises(ValueError, match=r"shape \(2, 9\) must be \(2, 8\)"):
        bank.push(np.arange(2), np.zeros((2, 9), np.float16))
    for clip_ids in ([-1, 0], [0, NUM_CLIPS]):
        with pytest.raises(ValueError, match="clip_ids from"):
            bank.push(np.array(clip_ids), np.zeros((2, DIM), np.float16))


def test_signs_of_a_collapse_are_what_is_beyond_a_limit_of_any_head() -> None:
    limits = HealthConfig(min_effective_rank=2.0, max_cluster_share=0.5)
    at_the_limits = {"effective_rank": 2.0, "head0/largest_share": 0.5, "head1/largest_share": 0.1, "inertia": 9.0}
    assert signs_of_collapse(at_the_limits, limits) == []
    beyond = {"effective_rank": 1.5, "head0/largest_share": 0.1, "head1/largest_share": 0.75}
    assert signs_of_collapse(beyond, limits) == ["effective_rank 1.50 < 2", "head1/largest_share 0.750 > 0.5"]


def test_health() -> None:
    bank = filled(num_clips=600)
    first = bank.cluster(0, (6,), 4, seed=0)
    sizes = np.bincount(first.labels[0], minlength=6)
    rows = normalize_rows(embeddings(num_clips=600)).astype(np.float64)
    nearest = first.prototypes[0][first.labels[0]]
    assert first.health["inertia"] == pytest.approx(((rows - nearest) ** 2).sum(), rel=1e-3)
    assert first.health["largest_share"] == sizes.max() / 600
    assert 0.9 < first.health["size_entropy"] <= 1
    assert 7 < first.health["effective_rank"] <= 8
    assert first.health["empty_clusters"] == 0
    assert "nmi_previous" not in first.health
    again = bank.cluster(0, (6,), 4, seed=0, previous=first)
    assert again.health["nmi_previous"] == pytest.approx(1)
    constant = build(num_clips=600)
    constant.push(np.arange(600), normalize_rows(np.ones((600, DIM))))
    collapsed = constant.cluster(0, (6,), 4, seed=0).health
    assert (collapsed["distinct_starts"], collapsed["empty_clusters"], collapsed["largest_share"]) == (1, 5, 1)
    assert collapsed["effective_rank"] == pytest.approx(1, abs=1e-3)
    assert collapsed["size_entropy"] == 0


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 2), (1, 5), (5, 2), (7, 1)])
def test_a_saved_bank_goes_on_with_any_number_of_shards(before: int, after: int, tmp_path: Path) -> None:
    bank = filled(before)
    bank.begin_epoch()
    some = np.arange(0, NUM_CLIPS, 3)
    rows = normalize_rows(embeddings(seed=1)[some])
    rows[:4] = np.nan
    bank.push(some, rows)
    bank.save(str(tmp_path))
    other = build(after)
    other.load(str(tmp_path))
    assert np.array_equal(other.gather(np.arange(NUM_CLIPS)), bank.gather(np.arange(NUM_CLIPS)))
    assert_equal(other.cluster(1, CLUSTERS, 2, seed=7), bank.cluster(1, CLUSTERS, 2, seed=7))


def test_a_bank_of_other_clips_is_refused(tmp_path: Path) -> None:
    filled(num_clips=600).save(str(tmp_path))
    with pytest.raises(ValueError, match=f"num_clips=600, this run {NUM_CLIPS}"):
        build().load(str(tmp_path))


def test_an_assignment_comes_back_bit_for_bit(tmp_path: Path) -> None:
    written = filled().cluster(3, CLUSTERS, 2, seed=7)
    write_assignment(str(tmp_path), written)
    assert_equal(read_assignment(str(tmp_path)), written)
    table = pq.read_table(tmp_path / "head-1.parquet")
    assert table.schema.names == ["clip_id", "cluster", "distance"]
    assert [str(kind) for kind in table.schema.types] == ["int64", "int32", "float"]
    assert table["clip_id"].to_pylist() == list(range(NUM_CLIPS))
    path = tmp_path / "head-0.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"head-0\.parquet is damaged"):
        read_assignment(str(tmp_path))


def push_epoch(clusterer: InProcessClusterer, epoch: int, parts: slice = slice(None)) -> int:
    """Push the embeddings of an epoch, or some of its ten parts; return the number of rows."""
    clips = list(np.array_split(np.random.default_rng(epoch).permutation(NUM_CLIPS), 10)[parts])
    for clip_ids in clips:
        clusterer.push(clip_ids, embeddings(epoch)[clip_ids])
    return sum(map(len, clips))


def test_a_restart_in_mid_epoch_gives_the_labels_of_an_undisturbed_run(tmp_path: Path) -> None:
    whole = InProcessClusterer(plan(tmp_path / "whole"))
    whole.restore(None, 0)
    expected = [whole.labels(epoch, 0, push_epoch(whole, epoch)) for epoch in range(3)]

    first = InProcessClusterer(plan(tmp_path / "cut"))
    first.restore(None, 0)
    first.labels(0, 0, push_epoch(first, 0))
    push_epoch(first, 1, slice(0, 4))
    first.save(str(tmp_path / "checkpoint"))
    push_epoch(first, 1, slice(4, 7))  # these are lost with the process

    second = InProcessClusterer(plan(tmp_path / "cut"))
    for _ in range(2):  # a second restore changes nothing
        second.restore(str(tmp_path / "checkpoint"), 0)
        assert_equal(second.labels(0, 0, 0), expected[0])
        assert_equal(second.labels(1, 0, push_epoch(second, 1, slice(4, 10))), expected[1])
    assert_equal(second.labels(1, 0, 0), expected[1])
    assert_equal(second.labels(2, 0, push_epoch(second, 2)), expected[2])
    assert_equal(read_assignment(str(tmp_path / "cut/assignments/epoch-0002")), expected[2])
    with pytest.raises(ValueError, match="is of epoch 0: it cannot begin epoch 2"):
        second.restore(str(tmp_path / "checkpoint"), 2)


def test_lost_rows_and_wrong_epochs_are_refused(tmp_path: Path) -> None:
    clusterer = InProcessClusterer(plan(tmp_path))
    with pytest.raises(RuntimeError, match=r"call restore\(\) first"):
        clusterer.push(np.arange(2), embeddings()[:2])
    clusterer.restore(None, 0)
    rows = push_epoch(clusterer, 0)
    with pytest.raises(RuntimeError, match=f"{rows + 64} embeddings were pushed for epoch 0 but {rows} arrived"):
        clusterer.labels(0, 0, rows + 64)
    with pytest.raises(RuntimeError, match="the next assignment is of epoch 0, epoch 1 was asked for"):
        clusterer.labels(1, 0, rows)


def test_old_assignments_are_forgotten(tmp_path: Path) -> None:
    clusterer = InProcessClusterer(plan(tmp_path))
    clusterer.restore(None, 0)
    for epoch in range(3):
        clusterer.labels(epoch, 0, push_epoch(clusterer, epoch))
    clusterer.forget(2)
    assert [path.name for path in (tmp_path / "assignments").iterdir()] == ["epoch-0002"]
    clusterer.forget(-1)
