"""Chooses the clusters of a run to listen to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unfused_ray import storage
from unfused_ray.figures.run import spread_clusters
from unfused_ray.runs.reader import RunReader

NUM_CLUSTERS = 8
PLACES = ("nearest", "median", "farthest")
"""Clips of a cluster that a page plays."""


def refuse_unknown(runs: Sequence[RunReader], requested: Sequence[int]) -> None:
    """Refuse clusters that a run does not have.

    Args:
        runs: runs of a page.
        requested: numbers of clusters, for every run that has clusters; with several heads, of the first.

    Raises:
        ValueError: a run lacks such a cluster, or has no clip in it, or no run has clusters.
    """
    labelled = [run for run in runs if run.has_assignment]
    if requested and not labelled:
        raise ValueError(f"clusters={_listed(requested)}: no run of the page has clusters to listen to")
    for run in labelled:
        labels = run.assignment.labels[0]
        known = np.unique(labels[labels >= 0])
        if missing := [cluster for cluster in requested if cluster not in known]:
            raise ValueError(
                f"clusters={_listed(missing)}: {storage.masked(run.uri)} has no such cluster with clips in it; its "
                f"{len(known)} clusters are numbered {known[0]} to {known[-1]}"
            )


def choose(clusters_N: np.ndarray, distances_N: np.ndarray, requested: Sequence[int] = ()) -> dict[int, str]:
    """Choose at most ``NUM_CLUSTERS`` clusters, and add the requested ones, each with a reason.

    These are the most and the least coherent cluster (by mean distance to the centroid), and clusters of evenly spread
    sizes from the largest to the smallest. Clusters of fewer than three clips are chosen only if there are no larger
    ones.

    Args:
        clusters_N: cluster of each clip; -1 is none.
        distances_N: distance of each clip to its centroid; NaN if unknown.
        requested: clusters to include, which have clips.

    Returns:
        The reasons by cluster, the largest cluster first.
    """
    sizes = np.bincount(clusters_N[clusters_N >= 0])
    whole = sizes >= min(len(PLACES), sizes.max())
    eligible_N = np.where((clusters_N >= 0) & whole[clusters_N], clusters_N, -1)
    reasons: dict[int, list[str]] = {}
    known = (eligible_N >= 0) & np.isfinite(distances_N)
    if known.any():
        counts = np.bincount(eligible_N[known], minlength=len(sizes))
        totals = np.bincount(eligible_N[known], distances_N[known], minlength=len(sizes))
        means = totals / np.where(counts > 0, counts, np.nan)
        reasons.setdefault(int(np.nanargmin(means)), []).append("the most coherent")
        reasons.setdefault(int(np.nanargmax(means)), []).append("the least coherent")
    spread = spread_clusters(eligible_N, NUM_CLUSTERS - len(reasons)).tolist()
    # Of two or less, the first place is also the one of the median or the smallest: the last name stays.
    names = {(len(spread) - 1) // 2: "of median size", len(spread) - 1: "the smallest", 0: "the largest"}
    for place, cluster in enumerate(spread):
        reasons.setdefault(cluster, []).append(names.get(place, ""))
    for cluster in requested:
        reasons.setdefault(cluster, []).insert(0, "asked for")
    ordered = sorted(reasons, key=lambda cluster: (-sizes[cluster], cluster))
    return {cluster: ", ".join(filter(None, reasons[cluster])) for cluster in ordered}


def _listed(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))
