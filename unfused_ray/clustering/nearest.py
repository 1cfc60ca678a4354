"""Finds each row's nearest centroid, the product in which k-means spends its time: by oneDNN, or by faiss on a GPU.

Shapes: R rows of a tile, D dimensions, K centroids. Rows are float16 values, centroids float32, both of length 1, so
that a product in float32 is off by at most about D · 2^-24, whatever the order of its sum.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from unfused_ray import extras
from unfused_ray.clustering.rows import BLOCK_ROWS, TILE_ROWS

Finder = Callable[[Tensor], tuple[np.ndarray, np.ndarray]]
"""Finds the nearest centroid of each row of a tile, ``(R, D)`` float32, and the similarity with it: ``(R,)`` each."""
TopTwo = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Finds the two largest inner products of each row with the centroids, float32, and their indices: ``(R, 2)`` each.

Rows and centroids are float32. With a single centroid the second index is -1. Equal products are in any order.
"""

_IMAGES = 16
_CENTROIDS = 1024
"""Number of centroids multiplied at once: with more of them, the similarities of a tile leave the cache."""
_LENGTHS = 1.01
"""Upper bound of the squared lengths of rows and centroids: rounding to float16 lengthens a row by up to 2^-11."""
_RESCORED_ROWS = 1024
_TEMPORARY_BYTES = 256 << 20
"""GPU memory that faiss reserves, instead of 1.5 GB, because the network is on the same GPU."""


class Nearest(Protocol):
    """A way to find nearest centroids. Its result for a row depends only on that row and the centroids."""

    @property
    def tile_rows(self) -> int:
        """Number of rows in a tile, a divisor or a multiple of ``BLOCK_ROWS``."""
        ...

    def finder(self, centroids_KD: np.ndarray) -> Finder:
        """Prepare to find the nearest of these centroids; several threads may call the returned function."""
        ...


class OneDnn:
    """Products in float32 by oneDNN, each tile on one thread. The nearest centroid is that in float32; ties take the
    lowest."""

    tile_rows = TILE_ROWS

    def finder(self, centroids_KD: np.ndarray) -> Finder:
        """Prepare the centroids as 1 × 1 convolutions."""
        whole = torch.from_numpy(np.require(centroids_KD, requirements="W"))[:, :, None, None]
        kernels = whole.split(_CENTROIDS)
        return lambda rows_RD: _by_convolution(rows_RD, kernels)


class FaissGpu:
    """Products in float32 by faiss on a GPU; the nearest is certified, so that labels are those of float64.

    faiss leaves the order of equal neighbours open, and products differ in the last bits between cards. So faiss gives
    two candidates for each row, and :func:`certify` decides if they are too close.

    Args:
        top_two: finds the candidates; by default faiss on this process's first GPU.

    Raises:
        ValueError: faiss sees no GPU here.
        MissingExtraError: faiss is not installed.
    """

    tile_rows = 16 * BLOCK_ROWS

    def __init__(self, top_two: TopTwo | None = None) -> None:
        self._top_two = top_two or _top_two_on_gpu()
        self._lock = threading.Lock()  # faiss's resources on a GPU serve one thread at a time

    def finder(self, centroids_KD: np.ndarray) -> Finder:
        """Prepare the centroids, also in float64."""
        centroids = np.ascontiguousarray(centroids_KD, np.float32)
        exact_KD = torch.from_numpy(centroids.astype(np.float64))

        def find(rows_RD: Tensor) -> tuple[np.ndarray, np.ndarray]:
            with self._lock:
                similarities_R2, labels_R2 = self._top_two(rows_RD.numpy(), centroids)
            return certify(rows_RD, exact_KD, similarities_R2, labels_R2)

        return find


def certify(
    rows_RD: Tensor, centroids_KD: Tensor, similarities_R2: np.ndarray, labels_R2: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels that do not depend on the maker of the products: each row's nearest centroid by float64.

    A product of length-1 vectors in float32 is off by at most D · 2^-24. So if two candidates differ by more than twice
    that, the first is nearest. The other rows, about one in ten thousand, are compared with all centroids in float64;
    among centroids that differ only by float64's rounding, the lowest index is taken. A zero row is in cluster 0.

    Args:
        rows_RD: the rows, float32.
        centroids_KD: the centroids, float64.
        similarities_R2, labels_R2: the result of a :data:`TopTwo`.

    Returns:
        The labels, int64, and the similarities, float32, whose last bits depend on the maker of the products.
    """
    dim = rows_RD.shape[1]
    labels_R, similarities_R = labels_R2[:, 0].copy(), similarities_R2[:, 0].copy()
    zero_R = ~rows_RD.any(1).numpy()
    labels_R[zero_R], similarities_R[zero_R] = 0, 0.0
    margins_R = similarities_R2[:, 0] - similarities_R2[:, 1]
    is_close_R = (labels_R2[:, 1] >= 0) & ~(margins_R > 2 * _LENGTHS * dim * 2.0**-24) & ~zero_R
    close = np.flatnonzero(is_close_R)
    for first in range(0, len(close), _RESCORED_ROWS):
        part = close[first : first + _RESCORED_ROWS]
        exact_CK = (rows_RD[torch.from_numpy(part)].double() @ centroids_KD.T).numpy()
        best_C1 = exact_CK.max(axis=1, keepdims=True)
        labels_R[part] = (exact_CK >= best_C1 - 2 * _LENGTHS * dim * 2.0**-53).argmax(axis=1)
        similarities_R[part] = best_C1[:, 0]
    return labels_R, similarities_R


def _top_two_on_gpu() -> TopTwo:
    extras.require("gpu", "faiss", "method.assignment_gpus above 0")
    faiss: Any = import_module("faiss")
    if not torch.cuda.is_available() or not faiss.get_num_gpus():  # faiss would end the process without a driver
        installed = ", ".join(f"{name} {version}" for name, version in extras.installed_faiss().items())
        raise ValueError(
            f"method.assignment_gpus is above 0, but faiss sees no GPU here ({installed}): install faiss-gpu instead "
            "of faiss-cpu (pip uninstall faiss-cpu, then pip install 'unfused-ray[gpu]') on nodes with a GPU, or give 0"
        )
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(_TEMPORARY_BYTES)

    def top_two(rows_RD: np.ndarray, centroids_KD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return faiss.knn_gpu(resources, rows_RD, centroids_KD, 2, metric=faiss.METRIC_INNER_PRODUCT)

    return top_two


def _by_convolution(rows_RD: Tensor, kernels: tuple[Tensor, ...]) -> tuple[np.ndarray, np.ndarray]:
    rows = np.arange(len(rows_RD))
    labels, similarities = [], []
    for part, kernels_CD11 in enumerate(kernels):
        similarities_RC = _similarities(rows_RD, kernels_CD11)
        found_R = similarities_RC.argmax(axis=1)  # takes a tenth of the time of torch's argmax
        labels.append(part * _CENTROIDS + found_R)
        similarities.append(similarities_RC[rows, found_R])
    if len(kernels) == 1:
        return labels[0], similarities[0]
    best_R = np.argmax(similarities, axis=0)
    return np.stack(labels)[best_R, rows], np.stack(similarities)[best_R, rows]


def _similarities(rows_RD: Tensor, kernels_CD11: Tensor) -> np.ndarray:
    """Compute inner products, ``(R, C)``."""
    # Computed as a convolution, because oneDNN does that with the widest instructions of any processor: 230 GFLOP/s per
    # core of an AMD EPYC, where MKL (torch.mm) and OpenBLAS (faiss, numpy) reach 100 and 117. MKL would take fewer than
    # 16 images.
    images = rows_RD.view(_IMAGES, -1, 1, rows_RD.shape[1]).permute(0, 3, 1, 2)  # channels last: no copy
    return conv2d(images, kernels_CD11).permute(0, 2, 3, 1).reshape(len(rows_RD), -1).numpy()
