"""Spherical k-means: k-means of unit vectors under cosine similarity (Dhillon and Modha 2001, Machine Learning 42).

The result depends only on the rows and the starts, *bit for bit*: not on the processes or threads that share the work,
nor on the order in which partial results arrive. Two facts ensure this:

* Rows are multiplied with the centroids in tiles of ``TILE_ROWS``, the last one padded with zeros, each by one thread.
  A tile is never divided, so every row is always computed in the same product. On a GPU labels are certified instead
  (:class:`~unfused_ray.clustering.nearest.FaissGpu`).
* Rows are kept as float16. Each of their values is a multiple of 2^-24 and at most 1, so a float64 holds the sum of up
  to 2^29 of them without rounding, whatever the order.

Shapes: N rows, D dimensions, K clusters. A zero row (padding, or an embedding without a direction) is in cluster 0, at
distance 1, and moves no centroid.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from unfused_ray.clustering.rows import BLOCK_ROWS, unit_rows

logger = logging.getLogger(__name__)

_SPLIT = 1 / 1024


class Points(Protocol):
    """Rows to cluster, in whichever process they are."""

    @property
    def num_rows(self) -> int:
        """Number of rows, N."""
        ...

    def gather(self, ids: np.ndarray) -> np.ndarray:
        """Return the float16 rows of these ids."""
        ...

    def sums(self, centroids_KD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the sum of the rows nearest to each centroid, ``(K, D)`` float64, and their number, ``(K,)`` int64."""
        ...

    def assign(self, centroids_KD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return each row's nearest centroid, ``(N,)`` int32, and the similarity with it, ``(N,)`` float32."""
        ...


@dataclass(frozen=True)
class Clustering:
    """A clustering of N rows into K clusters."""

    labels: np.ndarray
    """(N,) int32: the nearest of the final centroids."""
    distances: np.ndarray
    """(N,) float32: 1 - cosine similarity with that centroid, at least 0."""
    centroids: np.ndarray
    """(K, D) float32, L2-normalised."""
    num_refills: int
    """Number of empty clusters that were refilled, over all iterations."""
    num_distinct_starts: int
    """Number of different rows among the starts; below K if the data hold no more."""

    @property
    def inertia(self) -> float:
        """Sum of squared Euclidean distances of the unit vectors to their centroids, in the order of the rows."""
        return float(2 * self.distances.sum(dtype=np.float64))


def fit(points: Points, num_clusters: int, iterations: int, rng: np.random.Generator) -> Clustering:
    """Cluster the rows from distinct starts drawn by ``rng``.

    Raises:
        ValueError: there are fewer rows than clusters, or all rows are zero.
    """
    if num_clusters > points.num_rows:
        raise ValueError(f"num_clusters={num_clusters} must not exceed the number of rows, {points.num_rows}")
    return lloyd(points, draw_starts(points, num_clusters, rng), num_clusters, iterations)


def draw_starts(points: Points, num_clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the first ``num_clusters`` different, non-zero rows of a random order: ``(at most K, D)`` float32.

    Raises:
        ValueError: all rows are zero.
    """
    order = rng.permutation(points.num_rows)
    distinct: dict[bytes, None] = {}
    chunk = max(2 * num_clusters, BLOCK_ROWS)
    for start in range(0, len(order), chunk):
        rows = points.gather(order[start : start + chunk])
        distinct |= dict.fromkeys(rows.view(f"V{rows.shape[1] * rows.itemsize}")[:, 0].tolist())
        distinct.pop(bytes(rows.shape[1] * rows.itemsize), None)
        if len(distinct) >= num_clusters:
            break
    if not distinct:
        raise ValueError(
            f"all {points.num_rows} embeddings are zero: there is nothing to cluster, the encoder has collapsed"
        )
    starts = [np.frombuffer(row, np.float16) for row in list(distinct)[:num_clusters]]
    return unit_rows(np.stack(starts).astype(np.float64)).astype(np.float32)


def lloyd(points: Points, starts: np.ndarray, num_clusters: int, iterations: int) -> Clustering:
    """Assign and average ``iterations`` times, from given starts; then assign every row to its nearest final centroid.

    Args:
        points: the rows.
        starts: ``(S, D)`` float32 unit vectors; if they are fewer than K, they are repeated, and the copies count as
            empty clusters, which are refilled.
        num_clusters: K, number of clusters.
        iterations: number of iterations of Lloyd's algorithm.
    """
    if len(starts) < num_clusters:
        logger.warning("only %d different embeddings for %d clusters: some stay empty", len(starts), num_clusters)
    centroids = starts[np.arange(num_clusters) % len(starts)]
    num_refills = 0
    for _ in range(iterations):
        previous = centroids
        centroids, refilled = update_centroids(*points.sums(previous))
        num_refills += refilled
        if not refilled and np.array_equal(centroids, previous):
            break  # every further iteration would give the same
    labels, similarities = points.assign(centroids)
    return Clustering(labels, np.maximum(1 - similarities, 0), centroids, num_refills, len(starts))


def update_centroids(sums_KD: np.ndarray, counts_K: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the directions of the sums, ``(K, D)`` float32, and the number of clusters without one, now refilled.

    Such a cluster takes half of the largest one: both get its direction, tilted slightly in opposite ways (as in
    faiss).
    """
    norms = np.linalg.norm(sums_KD, axis=1)
    centroids = unit_rows(sums_KD)
    sizes = np.where(norms > 0, counts_K, 0)
    empty = np.flatnonzero(norms == 0)
    tilt = _SPLIT * np.where(np.arange(sums_KD.shape[1]) % 2, -1, 1)
    for cluster in empty:
        largest = sizes.argmax()
        centroids[cluster] = centroids[largest] * (1 + tilt)
        centroids[largest] *= 1 - tilt
        sizes[cluster] = sizes[largest] // 2
        sizes[largest] -= sizes[cluster]
    return unit_rows(centroids).astype(np.float32), len(empty)
