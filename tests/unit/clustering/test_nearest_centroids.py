"""Nearest centroids are those of exact arithmetic, for any source of the products and any close call."""

from __future__ import annotations

from fractions import Fraction

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unfused_ray.clustering.clusterer import ClusteringPlan
from unfused_ray.clustering.kmeans import fit
from unfused_ray.clustering.nearest import FaissGpu, OneDnn
from unfused_ray.clustering.row_blocks import RowBlocks
from unfused_ray.clustering.rows import BLOCK_ROWS, normalize_rows
from unfused_ray.config import DecarConfig
from unfused_ray.methods.decar import DecarV2

DIM = 128


def by_faiss(rows_RD: np.ndarray, centroids_KD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the two nearest by faiss on a processor; the package for GPUs has the same function for both."""
    return faiss.knn(rows_RD, centroids_KD, 2, metric=faiss.METRIC_INNER_PRODUCT)


def worst(rows_RD: np.ndarray, centroids_KD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two nearest with the largest error of float32 products of unit vectors, in the wrong order."""
    exact = rows_RD.astype(np.float64) @ centroids_KD.T.astype(np.float64)
    bound = (rows_RD.shape[1] - 1) * 2.0**-24  # the rest of the error is the rounding below
    # Lower each row's largest product and raise all others.
    wrong = exact + np.where(exact >= exact.max(axis=1, keepdims=True), -bound, bound)
    if len(centroids_KD) == 1:
        return np.pad(wrong, ((0, 0), (0, 1))).astype(np.float32), np.tile([0, -1], (len(rows_RD), 1))
    labels = np.argsort(-wrong, axis=1, kind="stable")[:, :2]
    return np.take_along_axis(wrong, labels, axis=1).astype(np.float32), labels


def exact_nearest(row_D: np.ndarray, centroids_KD: np.ndarray) -> list[int]:
    """Return all nearest centroids, lowest first, by exact fractions; products within float64's rounding are equal."""
    row = [Fraction(float(value)) for value in row_D]
    products = [
        sum(a * Fraction(float(b)) for a, b in zip(row, centroid, strict=True) if a) for centroid in centroids_KD
    ]
    return [number for number, product in enumerate(products) if max(products) - product <= Fraction(1, 10**13)]


@st.composite
def close_calls(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows and centroids; many are equal, or differ in the last bit of a few values."""
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    num_rows, num_clusters, dim = draw(st.integers(1, 12)), draw(st.integers(1, 9)), draw(st.sampled_from([2, 8, 32]))
    base = rng.standard_normal((2, dim))
    rows = normalize_rows(base[rng.integers(2, size=num_rows)] + draw(st.sampled_from([0, 1e-3, 1])) * rng.random(dim))
    rows[rng.random(num_rows) < 0.2] = 0
    centroids = normalize_rows(base)[rng.integers(2, size=num_clusters)].astype(np.float32)
    nudged = rng.random(centroids.shape) < draw(st.sampled_from([0.0, 0.1]))
    return rows, np.where(nudged, np.nextafter(centroids, np.float32(2)), centroids)


@pytest.mark.parametrize("top_two", [by_faiss, worst])
@given(case=close_calls())
@settings(max_examples=60)
def test_labels_are_those_of_exact_arithmetic(top_two: object, case: tuple[np.ndarray, np.ndarray]) -> None:
    rows, centroids = case
    labels, similarities = FaissGpu(top_two).finder(centroids)(torch.from_numpy(rows).float())  # type: ignore[arg-type]
    for row, label, similarity in zip(rows, labels, similarities, strict=True):
        assert label == (exact_nearest(row, centroids)[0] if row.any() else 0)
        assert similarity == pytest.approx(float(row.astype(np.float64) @ centroids[label]), abs=1e-5)


def test_labels_and_centroids_are_those_of_onednn_where_clusters_overlap() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((200, DIM))[rng.integers(200, size=6000)] + 2 * rng.standard_normal((6000, DIM))
    clusterings = [
        fit(RowBlocks.of(rows, threads, nearest), 96, 4, np.random.default_rng(1))
        for nearest, threads in ((OneDnn(), 1), (FaissGpu(by_faiss), 1), (FaissGpu(by_faiss), 3), (FaissGpu(worst), 1))
    ]
    for other in clusterings[1:]:
        assert np.array_equal(other.labels, clusterings[0].labels)
        assert np.array_equal(other.centroids, clusterings[0].centroids)
        assert np.allclose(other.distances, clusterings[0].distances, atol=1e-5)


def test_few_rows_are_compared_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = normalize_rows(rng.standard_normal((20_000, DIM)))
    centroids = normalize_rows(rng.standard_normal((512, DIM))).astype(np.float32)
    exact, multiply = [], torch.Tensor.__matmul__

    def counted(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        exact.append(len(first))
        return multiply(first, second)

    monkeypatch.setattr(torch.Tensor, "__matmul__", counted)
    FaissGpu(by_faiss).finder(centroids)(torch.from_numpy(rows).float())
    assert 0 < sum(exact) < 40


def test_sums_count_no_zero_row_in_tiles_of_another_size() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((17 * BLOCK_ROWS + 5, 8))
    rows[::5] = 0
    centroids = normalize_rows(rng.standard_normal((7, 8))).astype(np.float32)
    expected, found = (RowBlocks.of(rows, 2, nearest).sums(centroids) for nearest in (OneDnn(), FaissGpu(by_faiss)))
    assert np.array_equal(found[0], expected[0])
    assert found[1].tolist() == expected[1].tolist()


def test_where_faiss_sees_no_gpu_a_share_of_one_is_refused() -> None:
    if faiss.get_num_gpus():
        pytest.skip("faiss sees a GPU")
    plan = ClusteringPlan(100, DIM, (3,), iterations=1, seed=0, assignments="", threads=1, gpus_per_shard=0.5)
    with pytest.raises(ValueError, match=r"faiss sees no GPU here \(faiss-[cg]pu [\d.]+\): install faiss-gpu instead"):
        plan.build_bank()


def test_the_share_of_a_gpu_is_the_method_s() -> None:
    assert DecarV2.clustering(DecarConfig(assignment_gpus=0.25)).gpus_per_shard == 0.25
    assert not DecarV2.clustering(DecarConfig()).gpus_per_shard
