"""Makes pseudo-labels of a task: whitens its clips' embeddings and clusters them from several starts.

Source: UnFuSeD, arXiv 2303.05668; PCA-whitening before k-means as in DECAR, arXiv 2110.08895.
"""

from __future__ import annotations

import numpy as np

from unfused_ray.audio import randomness
from unfused_ray.clustering import health
from unfused_ray.clustering.assignment import Assignment
from unfused_ray.clustering.kmeans import Clustering, fit
from unfused_ray.clustering.row_blocks import RowBlocks
from unfused_ray.clustering.rows import unit_rows
from unfused_ray.config import PseudoLabelConfig

_ROWS_PER_DIM = 8
_ROWS_AT_A_TIME = 8192


def whiten(embeddings_ND: np.ndarray, max_dim: int) -> tuple[np.ndarray, float]:
    """PCA-whiten to min(max_dim, N / 8, D) dimensions of variance 1, then L2-normalise.

    Directions without variance are left out. The directions are eigenvectors of the scatter matrix, which is summed
    some rows at a time. This takes memory for (D, D) and the result; a singular value decomposition takes several times
    the memory of the embeddings.

    Returns:
        ``(N, d)`` float32, and the effective rank of the embeddings.

    Raises:
        ValueError: no two embeddings differ.
    """
    num_rows, dim = embeddings_ND.shape
    if num_rows < 2 or not np.ptp(embeddings_ND, axis=0).any():
        raise ValueError(
            f"the embeddings of {num_rows} whole clips do not differ: there is nothing to cluster, the encoder has "
            "collapsed or the clips are damaged"
        )
    mean_D = embeddings_ND.mean(axis=0, dtype=np.float64)
    scatter_DD = np.zeros((dim, dim))
    for start in range(0, num_rows, _ROWS_AT_A_TIME):
        centred = embeddings_ND[start : start + _ROWS_AT_A_TIME] - mean_D
        scatter_DD += centred.T @ centred
    scatter_D, directions_DD = np.linalg.eigh(scatter_DD)
    kept = max(1, min(max_dim, num_rows // _ROWS_PER_DIM, dim, num_rows - 1))
    scale = np.sqrt(scatter_D[::-1][:kept].clip(min=0) / (num_rows - 1))
    real = scale > 1e-6 * scale[0]
    projection_Dd = directions_DD[:, ::-1][:, :kept][:, real] / scale[real]
    points_Nd = np.empty((num_rows, projection_Dd.shape[1]), np.float32)
    for start in range(0, num_rows, _ROWS_AT_A_TIME):
        rows = slice(start, start + _ROWS_AT_A_TIME)
        points_Nd[rows] = unit_rows((embeddings_ND[rows] - mean_D) @ projection_Dd)
    return points_Nd, health.effective_rank(scatter_DD + num_rows * np.outer(mean_D, mean_D))


def cluster(embeddings_ND: np.ndarray, config: PseudoLabelConfig, seed: int, threads: int) -> Assignment:
    """Make pseudo-labels of every clip, one head for each of ``config.num_clusters``; -1 if an embedding is NaN.

    Args:
        embeddings_ND: embeddings of whole clips, by clip_id; a row of NaN is a damaged clip.
        config: gives dimensions, numbers of clusters, starts and iterations.
        seed: seed of the starts.
        threads: number of threads of the k-means; it does not change the result.

    Raises:
        ValueError: there are fewer undamaged clips than clusters, or their embeddings do not differ.
    """
    whole = np.isfinite(embeddings_ND).all(axis=1)
    points_Nd, effective_rank = whiten(embeddings_ND if whole.all() else embeddings_ND[whole], config.max_dim)
    points = RowBlocks.of(points_Nd, threads)
    labels, distances, prototypes = [], [], []
    figures = {"effective_rank": effective_rank, "dim": float(points_Nd.shape[1])}
    for head, num_clusters in enumerate(config.num_clusters):
        best = _best_of_starts(points, num_clusters, config, seed, head)
        labels.append(_spread(best.labels, whole, -1))
        distances.append(_spread(best.distances, whole, np.nan))
        prototypes.append(best.centroids)
        figures |= health.named(health.of_head(best), head, len(config.num_clusters))
    return Assignment(0, tuple(labels), tuple(distances), tuple(prototypes), figures)


def of_classes(class_ids_N: np.ndarray) -> Assignment:
    """Return the true classes as an assignment of one head, with one-hot prototypes: the ceiling for any labels."""
    num_classes = int(class_ids_N.max()) + 1
    distances = np.zeros(len(class_ids_N), np.float32)
    return Assignment(0, (class_ids_N.astype(np.int32),), (distances,), (np.eye(num_classes, dtype=np.float32),), {})


def shuffled(assignment: Assignment, seed: int) -> Assignment:
    """Return the same labels dealt out at random among the labelled clips, so that cluster sizes stay: the floor."""
    labelled = np.flatnonzero(assignment.labels[0] >= 0)  # any head will do: a damaged clip has a label in none
    order = np.arange(len(assignment.labels[0]))
    order[labelled] = randomness.generator(seed, "shuffled labels").permutation(labelled)
    return Assignment(
        assignment.epoch,
        tuple(head[order] for head in assignment.labels),
        tuple(head[order] for head in assignment.distances),
        assignment.prototypes,
        assignment.health,
    )


def agreement_with(assignment: Assignment, class_ids_N: np.ndarray) -> dict[str, float]:
    """Compute each head's normalised mutual information with the true classes, over the clips that have both.

    It is reported, never trained on.
    """
    figures: dict[str, float] = {}
    for head, labels in enumerate(assignment.labels):
        both = (labels >= 0) & (class_ids_N >= 0)
        if both.any():
            nmi = health.normalized_mutual_information(class_ids_N[both], labels[both])
            figures |= health.named({"nmi_labels": nmi}, head, len(assignment.labels))
    return figures


def _best_of_starts(
    points: RowBlocks, num_clusters: int, config: PseudoLabelConfig, seed: int, head: int
) -> Clustering:
    runs = (
        fit(
            points,
            num_clusters,
            config.iterations,
            randomness.generator(seed, "pseudo-label starts", head, start),
        )
        for start in range(config.starts)
    )
    return min(runs, key=lambda clustering: clustering.inertia)


def _spread(values: np.ndarray, whole_N: np.ndarray, missing: float) -> np.ndarray:
    """Put the values of undamaged clips at their places among all clips."""
    spread = np.full(len(whole_N), missing, values.dtype)
    spread[whole_N] = values
    return spread
