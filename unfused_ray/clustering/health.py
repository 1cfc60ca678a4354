"""Metrics that distinguish a healthy clustering from a collapsed one, from sums that do not depend on any order."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from unfused_ray.clustering.kmeans import Clustering
from unfused_ray.config import HealthConfig


def of_head(head: Clustering, previous_N: np.ndarray | None = None) -> dict[str, float]:
    """Compute the metrics of one clustering.

    Args:
        head: the clustering.
        previous_N: previous labels of the same rows, if there are any.
    """
    sizes = np.bincount(head.labels, minlength=len(head.centroids))
    figures = {
        "inertia": head.inertia,
        "empty_clusters": float((sizes == 0).sum()),
        "refilled_clusters": float(head.num_refills),
        "distinct_starts": float(head.num_distinct_starts),
        "largest_share": float(sizes.max() / sizes.sum()),
        "size_entropy": evenness(sizes),
    }
    if previous_N is not None:
        figures["nmi_previous"] = normalized_mutual_information(previous_N, head.labels)
    return figures


def named(figures: dict[str, float], head: int, num_heads: int) -> dict[str, float]:
    """Return metrics under the names of one of several heads: ``head0/…``."""
    prefix = f"head{head}/" if num_heads > 1 else ""
    return {f"{prefix}{name}": value for name, value in figures.items()}


def signs_of_collapse(figures: Mapping[str, float], limits: HealthConfig) -> list[str]:
    """Describe the metrics of an epoch that are beyond the limits; each of several heads counts.

    Args:
        figures: metrics of the labels, or of the embeddings if there are no labels.
        limits: limits from the configuration.
    """
    signs = []
    for name, value in figures.items():
        figure = name.rpartition("/")[2]
        if figure == "effective_rank" and value < limits.min_effective_rank:
            signs.append(f"{name} {value:.2f} < {limits.min_effective_rank:g}")
        if figure == "largest_share" and value > limits.max_cluster_share:
            signs.append(f"{name} {value:.3f} > {limits.max_cluster_share:g}")
    return signs


def evenness(sizes_K: np.ndarray) -> float:
    """Compute the entropy of cluster sizes as a share of log K: 1 if all are equal, 0 if one cluster holds
    everything."""
    return float(_entropy(sizes_K) / np.log(len(sizes_K)))


def effective_rank(gram_DD: np.ndarray) -> float:
    """Compute the number of directions that embeddings use, from 1 to D (RankMe, arXiv 2210.02885, eq. 1).

    It is the exponential of the entropy of the embeddings' singular values, which are the square roots of the
    eigenvalues of ``gram_DD``, the sum of the embeddings' outer products. As in RankMe, the mean is not subtracted.
    """
    singular = np.sqrt(np.linalg.eigvalsh(gram_DD).clip(min=0))
    shares = singular[singular > 0] / singular.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def normalized_mutual_information(first_N: np.ndarray, second_N: np.ndarray) -> float:
    """Compute how far two labelings agree, whatever their ids: 1 if they are equal up to names, near 0 by chance.

    It is the mutual information divided by the mean of both entropies; 1 if both entropies are 0.
    """
    pairs = first_N.astype(np.int64) * (int(second_N.max()) + 1) + second_N
    joint = _entropy(np.unique(pairs, return_counts=True)[1])
    first, second = _entropy(np.bincount(first_N)), _entropy(np.bincount(second_N))
    return (first + second - joint) / ((first + second) / 2) if first + second > 0 else 1.0


def _entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())
