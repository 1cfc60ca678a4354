"""Rows of k-means in the memory of a process: assigned and summed tile by tile, on several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from unfused_ray.clustering.rows import BLOCK_ROWS, TILE_ROWS, normalize_rows

if TYPE_CHECKING:  # it imports torch, which takes 1.3 s: only where, and when, something is clustered
    from unfused_ray.clustering.nearest import Finder, Nearest

_T = TypeVar("_T")


class RowBlocks:
    """Rows in the memory of this process, in whole blocks.

    Args:
        num_rows: N, number of rows; all are zero at first.
        dim: D, size of a row.
        threads: number of tiles that are processed at the same time.
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
        """Return the L2-normalised embeddings as rows."""
        num_rows, dim = embeddings_ND.shape
        points = cls(num_rows, dim, threads, nearest)
        points.write(np.arange(num_rows), normalize_rows(embeddings_ND))
        return points

    def write(self, ids: np.ndarray, rows: np.ndarray) -> None:
        """Replace the float16 rows of these ids."""
        self.rows[ids] = rows
        self.has_direction[ids] = rows.any(axis=1)

    def gather(self, ids: np.ndarray) -> np.ndarray:
        """Return the float16 rows of these ids."""
        return self.rows[ids]

    def sums(self, centroids_KD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return sum and number of the rows nearest to each centroid, tile by tile."""
        from unfused_ray.clustering.tiles import sum_by_cluster

        find, size = self._finder(centroids_KD)

        def thread_sums(starts: Iterator[int]) -> tuple[np.ndarray, np.ndarray]:
            return sum_by_cluster((self.rows[start : start + size] for start in starts), find, *centroids_KD.shape)

        tiles = self._tiles(size)
        sums, counts = zip(*self._share(thread_sums, tiles), strict=True)
        counts_K = reduce(np.add, counts)
        # A zero row is in cluster 0, but does not count.
        counts_K[0] -= sum(min(size, len(self.rows) - start) for start in tiles) - np.count_nonzero(self.has_direction)
        return reduce(np.add, sums), counts_K

    def assign(self, centroids_KD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return each row's nearest centroid, and the similarity with it, tile by tile."""
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
        """Return the sum of the rows' outer products, ``(D, D)`` float64.

        The sum of each tile is rounded to multiples of 2^-24, so that the sum over tiles is exact in any order.
        """

        def thread_gram(starts: Iterator[int]) -> np.ndarray:
            gram_DD = np.zeros((self.rows.shape[1],) * 2)
            for start in starts:
                rows = self.rows[start : start + TILE_ROWS].astype(np.float64)
                gram_DD += np.rint(rows.T @ rows * 2.0**24) * 2.0**-24
            return gram_DD

        return reduce(np.add, self._share(thread_gram, self._tiles(TILE_ROWS)))

    def _finder(self, centroids_KD: np.ndarray) -> tuple[Finder, int]:
        """Prepare to find the nearest of these centroids; also return the number of rows of a tile."""
        from unfused_ray.clustering.nearest import OneDnn

        nearest = self._nearest or OneDnn()
        return nearest.finder(centroids_KD), nearest.tile_rows

    def _tiles(self, size: int) -> list[int]:
        """Return the first rows of the tiles that are not all zero; the others add nothing, and stay in cluster 0."""
        starts = np.arange(0, len(self.rows), size)
        return starts[np.logical_or.reduceat(self.has_direction, starts)].tolist()

    def _share(self, work: Callable[[Iterator[int]], _T], tiles: list[int]) -> list[_T]:
        """Return each thread's result for its share of the tiles; a free thread takes the next tile."""
        shared = iter(tiles)
        return list(self._pool.map(work, [shared] * self._threads))


def _use_one_thread() -> None:
    from unfused_ray.clustering.tiles import use_one_thread

    use_one_thread()
