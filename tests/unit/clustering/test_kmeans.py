"""Spherical k-means equals a naive reference and faiss, bit for bit the same for any threads and tiles."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import normalized_mutual_info_score

from unfused_ray.clustering import health
from unfused_ray.clustering.kmeans import draw_starts, fit, lloyd, update_centroids
from unfused_ray.clustering.row_blocks import RowBlocks
from unfused_ray.clustering.rows import BLOCK_ROWS, normalize_rows


def blobs(num_rows: int, num_clusters: int, dim: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return unit vectors around random directions, and the direction of each."""
    rng = np.random.default_rng(seed)
    truth = np.arange(num_rows) % num_clusters
    rows = rng.standard_normal((num_clusters, dim))[truth] + noise * rng.standard_normal((num_rows, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), truth


def naive_lloyd(rows: np.ndarray, starts: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run k-means with loops in float64, for data that leave no cluster empty."""
    centroids = starts.astype(np.float64)
    for _ in range(iterations):
        labels = (rows @ centroids.T).argmax(axis=1)
        for k in range(len(centroids)):
            mean = rows[labels == k].mean(axis=0)
            centroids[k] = mean / np.linalg.norm(mean)
    similarities = rows @ centroids.T
    return similarities.argmax(axis=1), 1 - similarities.max(axis=1), centroids


@given(
    num_rows=st.integers(60, 5000),
    num_clusters=st.integers(2, 12),
    dim=st.integers(8, 40),
    iterations=st.integers(1, 4),
)
@settings(max_examples=25)
def test_equals_the_naive_reference(num_rows: int, num_clusters: int, dim: int, iterations: int) -> None:
    rows, _ = blobs(num_rows, num_clusters, dim, noise=0.1)
    points = RowBlocks.of(rows, threads=2)
    starts = rows[:num_clusters].astype(np.float32)
    found = lloyd(points, starts, num_clusters, iterations)
    stored = points.rows[:num_rows].astype(np.float64)
    labels, distances, centroids = naive_lloyd(stored, starts, iterations)
    assert np.array_equal(found.labels, labels)
    assert np.allclose(found.centroids, centroids, atol=1e-6)
    assert np.allclose(found.distances, distances.clip(min=0), atol=1e-6)
    assert (found.labels.dtype, found.distances.dtype, found.centroids.dtype) == (np.int32, np.float32, np.float32)


def test_inertia_is_that_of_faiss_from_equal_starts() -> None:
    rows, _ = blobs(20_000, 300, 32, noise=1.0)
    points = RowBlocks.of(rows, threads=2)
    stored = points.rows[: len(rows)].astype(np.float32)
    starts = draw_starts(points, 64, np.random.default_rng(5))
    reference = faiss.Kmeans(32, 64, niter=10, spherical=True, max_points_per_centroid=len(rows))
    reference.train(stored, init_centroids=starts)
    expected = 2 * (1 - reference.index.search(stored, 1)[0].astype(np.float64)).sum()
    found = lloyd(points, starts, 64, iterations=10)
    assert 2 * found.distances.sum(dtype=np.float64) == pytest.approx(expected, rel=1e-4)


def test_every_row_is_with_the_nearest_final_centroid() -> None:
    rows, _ = blobs(5000, 40, 16, noise=1.5)
    points = RowBlocks.of(rows, threads=1)
    found = fit(points, 30, iterations=3, rng=np.random.default_rng(0))
    similarities = points.rows[:5000].astype(np.float64) @ found.centroids.T.astype(np.float64)
    chosen = similarities[np.arange(5000), found.labels]
    assert (similarities.max(axis=1) - chosen).max() < 1e-6
    assert np.allclose(1 - chosen, found.distances, atol=1e-6)
    assert np.allclose(np.linalg.norm(found.centroids, axis=1), 1, atol=1e-6)


def test_clusters_are_pure_where_groups_are_apart() -> None:
    rows, truth = blobs(3000, 6, 32, noise=0.1)
    found = fit(RowBlocks.of(rows, 1), 30, 10, np.random.default_rng(0))
    assert all(len(np.unique(truth[found.labels == k])) == 1 for k in np.unique(found.labels))


@given(st.permutations(range(40)), st.integers(1, 3))
@settings(max_examples=20)
def test_sums_of_stored_rows_are_exact_in_any_order(order: list[int], scale: int) -> None:
    rng = np.random.default_rng(scale)
    rows = normalize_rows(rng.standard_normal((40, 24)) * 10.0 ** rng.integers(-8, 3, (40, 24)))
    total = rows[order].astype(np.float64).sum(axis=0)
    multiples = [[int(value * 2**24) for value in row] for row in rows.astype(np.float64).tolist()]
    exact = [sum(column) for column in zip(*multiples, strict=True)]
    assert (total * 2.0**24).tolist() == exact


def test_threads_change_no_bit() -> None:
    rows, _ = blobs(3 * BLOCK_ROWS + 17, 50, 24, noise=2.0)
    one, three = (fit(RowBlocks.of(rows, threads), 40, 5, np.random.default_rng(1)) for threads in (1, 3))
    assert np.array_equal(one.labels, three.labels)
    assert np.array_equal(one.distances, three.distances)
    assert np.array_equal(one.centroids, three.centroids)


def test_other_threads_of_the_process_keep_their_torch_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    RowBlocks.of(np.eye(4), threads=2).sums(np.eye(4, dtype=np.float32))
    with ThreadPoolExecutor(1) as pool:
        later = pool.submit(torch.get_num_threads).result()
    found = torch.get_num_threads()
    torch.set_num_threads(before)
    assert (found, later) == (2, 2)


@given(num_clusters=st.sampled_from([1, 7, 1024, 1025, 2100]), num_rows=st.sampled_from([1, 1024, 1500, 4097]))
@settings(max_examples=10)
def test_sums_and_counts_are_those_of_the_nearest_rows(num_clusters: int, num_rows: int) -> None:
    rng = np.random.default_rng(num_rows)
    rows, centroids = rng.standard_normal((num_rows, 16)), rng.standard_normal((num_clusters, 16)).astype(np.float32)
    rows[::5] = 0
    centroids.flags.writeable = False  # read-only, as a shard gets them from Ray
    points = RowBlocks.of(rows, threads=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sums, counts = points.sums(centroids)
        labels, similarities = points.assign(centroids)
    stored = points.rows[:num_rows].astype(np.float64)
    expected = stored @ centroids.T.astype(np.float64)
    assert np.allclose(similarities, expected.max(axis=1), atol=1e-5)
    assert np.allclose(expected[np.arange(num_rows), labels], expected.max(axis=1), atol=1e-5)
    one_hot = np.eye(num_clusters)[labels]
    assert np.array_equal(sums, one_hot.T @ stored)
    assert np.array_equal(counts, one_hot[stored.any(axis=1)].sum(axis=0))


def test_a_row_is_computed_alike_wherever_its_tile_is() -> None:
    rows, _ = blobs(4 * BLOCK_ROWS, 50, 24, noise=2.0)
    centroids = rows[:300].astype(np.float32)
    whole = RowBlocks.of(rows, threads=3).assign(centroids)
    for start in range(0, len(rows), BLOCK_ROWS):
        for found, of_all in zip(
            RowBlocks.of(rows[start : start + BLOCK_ROWS], 1).assign(centroids), whole, strict=True
        ):
            assert np.array_equal(found, of_all[start : start + BLOCK_ROWS])


def test_iterations_end_where_nothing_moves_any_more() -> None:
    rows, _ = blobs(300, 4, 8, noise=0.1)
    points = RowBlocks.of(rows, 1)
    starts = rows[:4].astype(np.float32)
    with patch.object(points, "sums", wraps=points.sums) as sums:
        found = lloyd(points, starts, 4, iterations=1000)
    assert sums.call_count < 20
    longer = starts
    for _ in range(30):
        longer, _ = update_centroids(*points.sums(longer))
    assert np.array_equal(found.centroids, longer)


def test_ties_go_to_the_lowest_cluster() -> None:
    points = RowBlocks.of(np.eye(4), threads=1)
    labels, similarities = points.assign(np.eye(4, dtype=np.float32)[[1, 0, 0, 1, 3]])
    assert labels.tolist() == [1, 0, 0, 4]
    assert similarities.tolist() == [1, 1, 0, 1]
    many = np.eye(4, dtype=np.float32)[np.arange(3000) % 3]
    assert points.assign(many)[0].tolist() == [0, 1, 2, 0]


def test_starts_are_distinct_and_follow_the_seed() -> None:
    rows, _ = blobs(50, 50, 8, noise=0.5)
    repeated = np.concatenate([np.zeros((30, 8)), np.tile(rows, (100, 1)), -np.zeros((10, 8))])
    points = RowBlocks.of(repeated, threads=1)
    starts = draw_starts(points, 50, np.random.default_rng(3))
    assert len(np.unique(starts, axis=0)) == 50
    assert np.allclose(np.linalg.norm(starts, axis=1), 1)
    assert np.array_equal(starts, draw_starts(points, 50, np.random.default_rng(3)))
    assert not np.array_equal(starts, draw_starts(points, 50, np.random.default_rng(4)))


@pytest.mark.parametrize("num_distinct", [1, 3])
def test_fewer_distinct_rows_than_clusters_still_cluster(num_distinct: int) -> None:
    rows, _ = blobs(num_distinct, num_distinct, 8, noise=0.0)
    found = fit(RowBlocks.of(rows[np.arange(500) % num_distinct], 1), 5, 4, np.random.default_rng(0))
    assert found.num_distinct_starts == num_distinct
    assert found.num_refills > 0
    assert len(np.unique(found.labels)) == num_distinct
    assert found.distances.max() < 1e-3
    assert np.allclose(np.linalg.norm(found.centroids, axis=1), 1, atol=1e-6)


def test_zero_rows_move_no_centroid() -> None:
    rows, _ = blobs(200, 4, 8, noise=0.3)
    starts = rows[:4].astype(np.float32)
    plain = lloyd(RowBlocks.of(rows, 1), starts, 4, 3)
    padded = lloyd(RowBlocks.of(np.concatenate([rows, np.zeros((300, 8))]), 1), starts, 4, 3)
    assert np.array_equal(plain.centroids, padded.centroids)
    assert np.array_equal(plain.labels, padded.labels[:200])
    assert (padded.labels[200:] == 0).all() and (padded.distances[200:] == 1).all()


def test_an_empty_cluster_takes_half_of_the_largest() -> None:
    sums = np.array([[30.0, 0.0], [0.0, 0.0], [0.0, 90.0]])
    centroids, refilled = update_centroids(sums, np.array([30, 500, 90]))  # cluster 1: 500 rows that cancel out
    assert refilled == 1
    assert centroids[0].tolist() == [1, 0]
    assert np.allclose(centroids[[1, 2]], [[0, 1], [0, 1]], atol=1e-2)


def test_a_start_that_attracts_nothing_gets_a_fair_share() -> None:
    rows, _ = blobs(2000, 2, 8, noise=0.5)
    rows = np.pad(rows, ((0, 0), (0, 1)))
    starts = np.concatenate([rows[:2], np.eye(9)[8:]]).astype(np.float32)  # the last is orthogonal to every row
    found = lloyd(RowBlocks.of(rows, 1), starts, 3, 5)
    assert found.num_refills == 1
    assert np.bincount(found.labels, minlength=3).min() > 100


def test_impossible_requests_are_refused() -> None:
    rows, _ = blobs(10, 10, 4, noise=0.1)
    with pytest.raises(ValueError, match="num_clusters=11 must not exceed the number of rows, 10"):
        fit(RowBlocks.of(rows, 1), 11, 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="all 10 embeddings are zero"):
        fit(RowBlocks.of(np.zeros((10, 4)), 1), 2, 1, np.random.default_rng(0))


def test_normalize_rows() -> None:
    embeddings = np.array([[3, -4, 0], [0, -0.0, 0], [np.nan, 1, 1], [np.inf, 0, 1], [3e38, 3e38, 0]], np.float32)
    rows = normalize_rows(embeddings)
    assert rows.dtype == np.float16
    assert rows[0].tolist() == pytest.approx([0.6, -0.8, 0], abs=1e-3)
    assert rows[1].tobytes() == bytes(6)
    assert np.isfinite(rows).all(axis=1).tolist() == [True, True, False, False, True]
    assert rows[4].tolist() == pytest.approx([0.7071, 0.7071, 0], abs=1e-3)


def test_gram_is_the_sum_of_outer_products() -> None:
    rows, _ = blobs(BLOCK_ROWS + 100, 10, 6, noise=1.0)
    points = RowBlocks.of(rows, threads=2)
    stored = points.rows.astype(np.float64)
    assert np.allclose(points.gram(), stored.T @ stored, atol=1e-6)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), min_size=2, max_size=200))
@settings(max_examples=50)
def test_mutual_information_is_that_of_sklearn(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs, np.int32).T
    expected = normalized_mutual_info_score(first, second)
    assert health.normalized_mutual_information(first, second) == pytest.approx(expected, abs=1e-9)


def test_effective_rank_and_entropy() -> None:
    rng = np.random.default_rng(0)
    flat = np.linalg.qr(rng.standard_normal((64, 8)))[0]
    assert health.effective_rank(flat.T @ flat) == pytest.approx(8)
    line = rng.standard_normal((100, 1)) * np.ones((1, 8))
    assert health.effective_rank(line.T @ line) == pytest.approx(1, abs=1e-4)
    rows = rng.standard_normal((50, 5))
    singular = np.linalg.svd(rows, compute_uv=False)
    shares = singular / singular.sum()
    assert health.effective_rank(rows.T @ rows) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    assert health.evenness(np.array([10, 10, 10, 10])) == pytest.approx(1)
    assert health.evenness(np.array([40, 0, 0, 0])) == pytest.approx(0)
