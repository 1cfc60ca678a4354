"""The arithmetic of k-means on a tile of rows, on one thread: the part of clustering that needs torch.

A tile's product with the centroids is always the same call on the same shape, so its bits depend on nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn.functional import conv2d

_IMAGES = 16
_CENTROIDS = 1024
"""Centroids multiplied at once: the similarities of a tile with more of them leave the cache."""


def use_one_thread() -> None:
    """Let torch compute on this thread alone from now on; the process's other threads keep theirs."""
    torch.get_num_threads()  # torch sets a thread's number at its first use of it: the limit must come after
    threadpool_limits(1, user_api="openmp")


@torch.inference_mode()
def sum_by_cluster(tiles: Iterable[np.ndarray], centroids_KD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the rows nearest to each centroid, ``(K, D)`` float64, and their number, ``(K,)`` int64.

    Args:
        tiles: ``(R, D)`` float16 each.
        centroids_KD: float32.
    """
    kernels = _kernels(centroids_KD)
    sums_KD = torch.zeros(centroids_KD.shape, dtype=torch.float64)
    counts_K = np.zeros(len(centroids_KD), np.int64)
    for tile in tiles:
        rows_RD = torch.from_numpy(tile).float()
        labels_R, _ = _nearest(rows_RD, kernels)
        sums_KD.index_add_(0, torch.from_numpy(labels_R), rows_RD.double())
        counts_K += np.bincount(labels_R, minlength=len(centroids_KD))
    return sums_KD.numpy(), counts_K


@torch.inference_mode()
def nearest(tile: np.ndarray, centroids_KD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest centroid of each row of a tile, the lowest of equals, and the similarity with it: ``(R,)`` each."""
    return _nearest(torch.from_numpy(tile).float(), _kernels(centroids_KD))


def _kernels(centroids_KD: np.ndarray) -> tuple[Tensor, ...]:
    """The centroids as 1 × 1 convolutions, ``(at most _CENTROIDS, D, 1, 1)`` each."""
    return torch.from_numpy(np.require(centroids_KD, requirements="W"))[:, :, None, None].split(_CENTROIDS)


def _nearest(rows_RD: Tensor, kernels: tuple[Tensor, ...]) -> tuple[np.ndarray, np.ndarray]:
    rows = np.arange(len(rows_RD))
    labels, similarities = [], []
    for part, kernels_CD11 in enumerate(kernels):
        similarities_RC = _similarities(rows_RD, kernels_CD11)
        found_R = similarities_RC.argmax(axis=1)  # a tenth of the time of torch's
        labels.append(part * _CENTROIDS + found_R)
        similarities.append(similarities_RC[rows, found_R])
    if len(kernels) == 1:
        return labels[0], similarities[0]
    best_R = np.argmax(similarities, axis=0)
    return np.stack(labels)[best_R, rows], np.stack(similarities)[best_R, rows]


def _similarities(rows_RD: Tensor, kernels_CD11: Tensor) -> np.ndarray:
    """Inner products, ``(R, C)``."""
    # As a convolution oneDNN computes them, with the widest instructions of any processor: 230 GFLOP/s per core of an
    # AMD EPYC where MKL (torch.mm) and OpenBLAS (faiss, numpy) reach 100 and 117. Fewer than 16 images go to MKL.
    images = rows_RD.view(_IMAGES, -1, 1, rows_RD.shape[1]).permute(0, 3, 1, 2)  # channels last: no copy
    return conv2d(images, kernels_CD11).permute(0, 2, 3, 1).reshape(len(rows_RD), -1).numpy()
