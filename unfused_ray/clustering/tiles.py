"""The arithmetic of k-means on a tile of rows, on one thread: the part of clustering that needs torch.

A tile's product with the centroids is always the same call on the same shape, so its bits do not depend on the work's
division.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from unfused_ray.clustering.nearest import Finder


def use_one_thread() -> None:
    """Let torch compute on this thread alone from now on; the process's other threads keep their setting."""
    torch.get_num_threads()  # torch sets the number at a thread's first use, so the limit must come after
    threadpool_limits(1, user_api="openmp")


@torch.inference_mode()
def sum_by_cluster(
    tiles: Iterable[np.ndarray], find: Finder, num_clusters: int, dim: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of the rows nearest to each centroid, ``(K, D)`` float64, and their number, ``(K,)`` int64.

    Args:
        tiles: tiles of rows, ``(R, D)`` float16 each.
        find: finds the nearest centroids.
        num_clusters, dim: K and D.
    """
    sums_KD = torch.zeros((num_clusters, dim), dtype=torch.float64)
    counts_K = np.zeros(num_clusters, np.int64)
    for tile in tiles:
        rows_RD = torch.from_numpy(tile).float()
        labels_R, _ = find(rows_RD)
        sums_KD.index_add_(0, torch.from_numpy(labels_R), rows_RD.double())
        counts_K += np.bincount(labels_R, minlength=num_clusters)
    return sums_KD.numpy(), counts_K


@torch.inference_mode()
def assign(tile: np.ndarray, find: Finder) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest centroid of each row of a tile, ``(R, D)`` float16, and the similarity with it: ``(R,)``
    each."""
    return find(torch.from_numpy(tile).float())
