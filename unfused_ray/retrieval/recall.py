"""Measures the recall of an index against comparing all vectors, and chooses how many lists to search."""

from __future__ import annotations

import logging

import numpy as np

from unfused_ray.retrieval.format import IndexManifest, Recall
from unfused_ray.retrieval.space import best
from unfused_ray.retrieval.stored import load_vectors, parts_of, read_part
from unfused_ray.retrieval.training import TrainedIndex

logger = logging.getLogger(__name__)

NEIGHBOURS = 10
"""Neighbours of which the recall is measured."""
_ERRORS = 2.0
"""Standard errors by which the measured recall has to be above the one wanted: other questions find fewer, too."""
_LEAST_GAIN = 0.01
"""Recall that twice as many lists have to add where vectors are codes, whose rounding limits it."""


def measure_recall(manifest: IndexManifest, trained: TrainedIndex, wanted: float) -> Recall:
    """Search for vectors of the index itself, in more and more lists until the recall is as wanted, or in all.

    The exactly nearest ones were found part by part as the parts were written. A vector does not find itself. Codes
    are rounded, so that even all lists may find fewer than wanted: then the number is the one that doubling adds little
    to, and a warning says so.

    Args:
        manifest: the parts.
        trained: lists and queries.
        wanted: recall to reach.
    """
    num_queries = len(trained.queries)
    if trained.kind == "exact":
        return Recall(num_queries, NEIGHBOURS, 1, 1.0, {})
    nearest_QK = _nearest(manifest, trained)
    vectors = load_vectors(manifest, trained)
    allowed_N = np.ones(manifest.num_vectors, bool)
    by_lists: dict[int, float] = {}
    lists = 1
    while True:
        found = [vectors.search(query, nearest_QK.shape[1], allowed_N, lists)[0] for query in trained.queries]
        shares_Q = np.array([_share(*pair) for pair in zip(nearest_QK, found, strict=True)])
        by_lists[lists] = float(shares_Q.mean())
        error = float(shares_Q.std() / np.sqrt(num_queries))
        is_enough = by_lists[lists] - _ERRORS * error >= wanted
        adds_little = trained.kind == "quantised" and by_lists[lists] < by_lists.get(lists // 2, -1) + _LEAST_GAIN
        if is_enough or adds_little or lists == vectors.num_lists:
            break
        lists = min(2 * lists, vectors.num_lists)
    if by_lists[lists] < wanted:
        logger.warning(
            "%s: a search finds %.3f of the %d nearest, not %.3f: codes are rounded. A larger --quantize-above keeps "
            "float16, which takes more memory",
            manifest.uri,
            by_lists[lists],
            NEIGHBOURS,
            wanted,
        )
    return Recall(num_queries, NEIGHBOURS, lists, by_lists[lists], by_lists)


def _share(nearest_K: np.ndarray, found: np.ndarray) -> float:
    """Share of the nearest that were found; the first is the query itself."""
    own, *others = nearest_K.tolist()
    return len({*others} & {*found.tolist()} - {own}) / max(len(others), 1)


def _nearest(manifest: IndexManifest, trained: TrainedIndex) -> np.ndarray:
    """(Q, K + 1) ids of the vectors that are nearest to the queries, by comparing all."""
    ids, similarities, first = [], [], 0
    for part in parts_of(manifest):
        arrays = read_part(manifest, part, trained)
        ids.append(arrays["nearest_rows"] + first)
        similarities.append(arrays["nearest_similarities"])
        first += part.num_vectors
    ids_QK = np.concatenate(ids, axis=1)
    return np.take_along_axis(ids_QK, best(np.concatenate(similarities, axis=1), NEIGHBOURS + 1), axis=1)
