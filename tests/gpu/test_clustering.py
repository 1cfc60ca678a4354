"""Cluster labels by faiss on a GPU equal those of exact arithmetic and those of a processor."""

from __future__ import annotations

import numpy as np
import pytest
import torch

faiss = pytest.importorskip("faiss")

from unfused_ray.clustering.kmeans import fit  # noqa: E402 - after the import of faiss, which may be missing
from unfused_ray.clustering.nearest import FaissGpu, OneDnn, TopTwo  # noqa: E402
from unfused_ray.clustering.row_blocks import RowBlocks  # noqa: E402
from unfused_ray.clustering.rows import normalize_rows  # noqa: E402

DIM, CLUSTERS = 128, 512


def nearest_on(device: torch.device) -> FaissGpu:
    """Return faiss on a GPU; on a processor, the same search with faiss's function for CPUs."""
    if device.type == "cuda":
        return FaissGpu()
    top_two: TopTwo = lambda rows, centroids: faiss.knn(rows, centroids, 2, metric=faiss.METRIC_INNER_PRODUCT)  # noqa: E731
    return FaissGpu(top_two)


def test_labels_are_those_of_exact_arithmetic(device: torch.device) -> None:
    rng = np.random.default_rng(0)
    centroids = normalize_rows(rng.standard_normal((CLUSTERS, DIM))).astype(np.float32)
    centroids[CLUSTERS // 2 :] = centroids[: CLUSTERS // 2]  # pairs: half equal, half one bit apart
    centroids[-CLUSTERS // 4 :, 0] = np.nextafter(centroids[-CLUSTERS // 4 :, 0], np.float32(2))
    rows = normalize_rows(centroids[rng.integers(CLUSTERS, size=5_000)] + rng.standard_normal((5_000, DIM)) / 8)
    exact = rows.astype(np.float64) @ centroids.T.astype(np.float64)
    rounding = 2 * 1.01 * DIM * 2.0**-53  # of two float64 products: closer ones count as equal, the lowest wins
    expected = (exact >= exact.max(axis=1, keepdims=True) - rounding).argmax(axis=1)
    found, similarities = nearest_on(device).finder(centroids)(torch.from_numpy(rows).float())
    assert np.array_equal(found, expected)
    assert np.allclose(similarities, exact.max(axis=1), atol=1e-5)


def test_a_clustering_is_that_of_a_processor(device: torch.device) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((200, DIM))[rng.integers(200, size=5_000)] + 2 * rng.standard_normal((5_000, DIM))
    expected, found = (
        fit(RowBlocks.of(rows, 2, nearest), 200, 3, np.random.default_rng(1))
        for nearest in (OneDnn(), nearest_on(device))
    )
    assert np.array_equal(found.labels, expected.labels)
    assert np.array_equal(found.centroids, expected.centroids)
