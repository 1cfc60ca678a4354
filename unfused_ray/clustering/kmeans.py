"""Spherical k-means: k-means of unit vectors under cosine similarity (Dhillon and Modha 2001, Machine Learning 42).

The result depends on the rows and the starts alone, *bit for bit*: not on the processes or threads that share the
work, nor on the order in which partial results arrive. Two facts make it so:

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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

if TYPE_CHECKING:  # it imports torch, which takes 1.3 s: only where, and when, something is clustered
    from unfused_ray.clustering.nearest import Finder, Nearest

logger = logging.getLogger(__name__)

BLOCK_ROWS = 4096
"""Rows that are kept together: a shard has whole blocks."""
TILE_ROWS = 2048
"""R, rows multiplied at once: the similarities stay in a core's cache, and few rows still employ several threads."""
_SPLIT = 1 / 1024
_T = TypeVar("_T")


class Points(Protocol):
    """Rows to cluster, wherever they are."""

    @property
    def num_rows(self) -> int:
        """N."""
        ...

    def gather(self, ids: np.ndarray) -> np.ndarray:
        """Float16 rows of these ids."""
        ...

    def sums(self, centroids_KD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sum of the rows nearest to each centroid, ``(K, D)`` float64, and their number, ``(K,)`` int64."""
        ...

    def assign(self, centroids_KD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Nearest centroid of each row, ``(N,)`` int32, and the similarity with it, ``(N,)`` float32."""
        ...


@dataclass(frozen=True)
class Clustering:
    """A clustering of N rows into K clusters."""

    labels: np.ndarray
    """(N,) int32: the nearest of the final centroids."""
    distances: np.ndarray
    """(N,) float32: 1 - cosine similarity with it, at least 0."""
    centroids: np.ndarray
    """(K, D) float32, L2-normalised."""
    num_refills: int
    """Empty clusters that were refilled, over all iterations."""
    num_distinct_starts: int
    """Different rows among the starts: less than K if the data hold no more."""

    @property
    def inertia(self) -> float:
        """Squared Euclidean distances of the unit vectors to their centroids, summed in the order of the rows."""
        return float(2 * self.distances.sum(dtype=np.float64))


class RowBlocks:
    """Rows in the memory of this process, in whole blocks.

    Args:
        num_rows: N; all rows are zero at first.
        dim: D.
        threads: tiles worked on at once.
        nearest: finds the nearest centroids; oneDNN by default.
    """

    def __init__(self, num_rows: int, dim: int, threads: int, nearest: Nearest | None = None) -> None:
        padded = -(-num_rows // BLOCK_ROWS) * BLOCK_ROWS
        self.num_rows = num_rows
        self.rows = np.zeros((padded, dim), np.float16)
        self.has_direction = np.zeros(padded, bool)
        self._threads = threads
        self._nearest = nearest
        self._pool = ThreadPoolExecutor(threads, initializer=_use_one_thread)

    @classmethod
    def of(cls, embeddings_ND: np.ndarray, threads: int, nearest: Nearest | None = None) -> RowBlocks:
        """The L2-normalised embeddings as rows."""
        num_rows, dim = embeddings_ND.shape
        points = cls(num_rows, dim, threads, nearest)
        points.write(np.arange(num_rows), normalize_rows(embeddings_ND))
        return points

    def write(self, ids: np.ndarray, rows: np.ndarray) -> None:
        """Replace the float16 rows of these ids."""
        self.rows[ids] = rows
        self.has_direction[ids] = rows.any(axis=1)

    def gather(self, ids: np.ndarray) -> np.ndarray:
        """Float16 rows of these ids."""
        return self.rows[ids]

    def sums(self, centroids_KD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sum and number of the rows nearest to each centroid, tile by tile."""
        from unfused_ray.clustering.tiles import sum_by_cluster

        find, size = self._finder(centroids_KD)

        def thread_sums(starts: Iterator[int]) -> tuple[np.ndarray, np.ndarray]:
            return sum_by_cluster((self.rows[start : start + size] for start in starts), find, *centroids_KD.shape)

        tiles = self._tiles(size)
        sums, counts = zip(*self._share(thread_sums, tiles), strict=True)
        counts_K = reduce(np.add, counts)
        # A zero row is in cluster 0, and does not count.
        counts_K[0] -= sum(min(size, len(self.rows) - start) for start in tiles) - np.count_nonzero(self.has_direction)
        return reduce(np.add, sums), counts_K

    def assign(self, centroids_KD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Nearest centroid of each row, and the similarity with it, tile by tile."""
        from unfused_ray.clustering.tiles import assign

        find, size = self._finder(centroids_KD)
        labels, similarities = np.zeros(len(self.rows), np.int32), np.zeros(len(self.rows), np.float32)

        def thread_assign(starts: Iterator[int]) -> None:
            for start in starts:
                tile = slice(start, start + size)
                labels[tile], similarities[tile] = assign(self.rows[tile], find)

        self._share(thread_assign, self._tiles(size))
        return labels[: self.num_rows], similarities[: self.num_rows]

    def gram(self) -> np.ndarray:
        """Sum over the rows of their outer products, ``(D, D)`` float64.

        Each tile's is rounded to multiples of 2^-24, so that the sum over tiles is exact in any order.
        """

        def thread_gram(starts: Iterator[int]) -> np.ndarray:
            gram_DD = np.zeros((self.rows.shape[1],) * 2)
            for start in starts:
                rows = self.rows[start : start + TILE_ROWS].astype(np.float64)
                gram_DD += np.rint(rows.T @ rows * 2.0**24) * 2.0**-24
            return gram_DD

        return reduce(np.add, self._share(thread_gram, self._tiles(TILE_ROWS)))

    def _finder(self, centroids_KD: np.ndarray) -> tuple[Finder, int]:
        """Prepare to find the nearest of these centroids; also return the rows of a tile."""
        from unfused_ray.clustering.nearest import OneDnn

        nearest = self._nearest or OneDnn()
        return nearest.finder(centroids_KD), nearest.tile_rows

    def _tiles(self, size: int) -> list[int]:
        """First rows of the tiles that are not all zero; the others have nothing to add, and stay in cluster 0."""
        starts = np.arange(0, len(self.rows), size)
        return starts[np.logical_or.reduceat(self.has_direction, starts)].tolist()

    def _share(self, work: Callable[[Iterator[int]], _T], tiles: list[int]) -> list[_T]:
        """The result of each thread for its share of the tiles: a free thread takes the next tile."""
        shared = iter(tiles)
        return list(self._pool.map(work, [shared] * self._threads))


def normalize_rows(embeddings_ND: np.ndarray) -> np.ndarray:
    """L2-normalise, then round to float16.

    A zero embedding stays zero. One that is not finite becomes NaN somewhere: whoever stores rows must look.
    """
    embeddings = np.ascontiguousarray(embeddings_ND, np.float64)
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        rows = (embeddings / np.where(norms == 0, 1, norms)).astype(np.float16)
    return rows + np.float16(0)  # -0 becomes 0: equal rows have equal bytes


def unit_rows(vectors_ND: np.ndarray) -> np.ndarray:
    """L2-normalise in the type that is given; a zero row stays zero."""
    norms_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return vectors_ND / np.where(norms_N1 > 0, norms_N1, 1)


def fit(points: Points, num_clusters: int, iterations: int, rng: np.random.Generator) -> Clustering:
    """Cluster the rows from distinct starts drawn by ``rng``.

    Raises:
        ValueError: there are fewer rows than clusters, or all rows are zero.
    """
    if num_clusters > points.num_rows:
        raise ValueError(f"num_clusters={num_clusters} must not exceed the number of rows, {points.num_rows}")
    return lloyd(points, draw_starts(points, num_clusters, rng), num_clusters, iterations)


def draw_starts(points: Points, num_clusters: int, rng: np.random.Generator) -> np.ndarray:
    """The first ``num_clusters`` different, non-zero rows of a random order: ``(at most K, D)`` float32.

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
        raise ValueError(f"all {points.num_rows} embeddings are zero: there is nothing to cluster, the encoder is dead")
    starts = [np.frombuffer(row, np.float16) for row in list(distinct)[:num_clusters]]
    return unit_rows(np.stack(starts).astype(np.float64)).astype(np.float32)


def lloyd(points: Points, starts: np.ndarray, num_clusters: int, iterations: int) -> Clustering:
    """``iterations`` times assign and average, from given starts; then every row goes to its nearest final centroid.

    Args:
        points: the rows.
        starts: ``(S, D)`` float32 unit vectors; fewer than K are repeated, the copies count as empty and are refilled.
        num_clusters: K.
        iterations: of Lloyd's algorithm.
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
            break  # every other iteration would give the same
    labels, similarities = points.assign(centroids)
    return Clustering(labels, np.maximum(1 - similarities, 0), centroids, num_refills, len(starts))


def update_centroids(sums_KD: np.ndarray, counts_K: np.ndarray) -> tuple[np.ndarray, int]:
    """The directions of the sums, ``(K, D)`` float32, and the number of clusters that had none and were refilled.

    Such a cluster takes half of the largest one: both get its direction, tilted a little either way (as in faiss).
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


def _use_one_thread() -> None:
    from unfused_ray.clustering.tiles import use_one_thread

    use_one_thread()
