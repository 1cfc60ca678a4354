"""Measures the recall of an index against comparing all vectors, and chooses the number of lists to search."""

from __future__ import annotations

import logging

import numpy as np

from unfused_ray.retrieval.format import IndexManifest, Recall
from unfused_ray.retrieval.space import best
from unfused_ray.retrieval.stored import load_vectors, parts_of, read_part
from unfused_ray.retrieval.training import TrainedIndex

logger = logging.getLogger(__name__)

NEIGHBOURS = 10
"""Number of nearest neighbours for which the recall is measured."""
NUM_COMPARED = NEIGHBOURS + 2
"""The query itself, its neighbours, and one more, which must differ from the last neighbour."""
_ROUNDING = 1e-6
"""Difference in the similarities of equal vectors."""
_ERRORS = 2.0
"""Standard errors by which the measured recall must exceed the wanted one: other queries may find fewer."""
_LEAST_GAIN = 0.01
"""Least gain in recall from twice as many lists, if vectors are codes, whose rounding limits the recall."""


def measure_recall(manifest: IndexManifest, trained: TrainedIndex, wanted: float) -> Recall:
    """Search for vectors of the index itself, in more and more lists, until the recall is reached or in all lists.

    The exactly nearest vectors were found part by part while the parts were written. A vector does not count as its own
    neighbour. A vector whose tenth neighbour is as near as its eleventh is not used: a collection may hold any number
    of equal vectors, as of silence, and it means nothing which of them are found. Codes are rounded, so even all lists
    may find fewer than wanted. Then the number of lists is the one that doubling adds little to, and a warning says so.

    Args:
        manifest: the parts.
        trained: lists and queries.
        wanted: recall to reach.
    """
    if trained.kind == "exact":
        return Recall(len(trained.queries), NEIGHBOURS, 1, 1.0, {})
    queries_QC, nearest_QK = _nearest(manifest, trained)
    if not (num_queries := len(queries_QC)) or nearest_QK.shape[1] == 1:  # the only vector has no neighbour
        return Recall(0, NEIGHBOURS, 1, 1.0, {})
    vectors = load_vectors(manifest, trained)
    allowed_N = np.ones(manifest.num_vectors, bool)
    by_lists: dict[int, float] = {}
    lists = 1
    while True:
        found = [vectors.search(query, nearest_QK.shape[1], allowed_N, lists)[0] for query in queries_QC]
        shares_Q = np.array([_share(*pair) for pair in zip(nearest_QK, found, strict=True)])
        by_lists[lists] = float(shares_Q.mean())
        error = float(shares_Q.std() / np.sqrt(num_queries))
        is_enough = by_lists[lists] - _ERRORS * error >= wanted
        adds_little = trained.kind == "quantised" and by_lists[lists] < by_lists.get(lists // 2, -1) + _LEAST_GAIN
        if is_enough or adds_little or lists == vectors.num_lists:
            break
        lists = min(2 * lists, vectors.num_lists)
    if by_lists[lists] < wanted:
        option, kept = ("quantize-above", "float16") if trained.kind == "quantised" else ("exact-up-to", "float32")
        logger.warning(
            "%s: a search finds %.3f of the %d nearest, not %.3f: codes are rounded. A larger --%s keeps %s, which "
            "takes more memory",
            manifest.uri,
            by_lists[lists],
            NEIGHBOURS,
            wanted,
            option,
            kept,
        )
    return Recall(num_queries, NEIGHBOURS, lists, by_lists[lists], by_lists)


def _share(nearest_K: np.ndarray, found: np.ndarray) -> float:
    """Return the share of the nearest vectors that were found; the first is the query itself."""
    own, *others = nearest_K.tolist()
    return len({*others} & {*found.tolist()} - {own}) / max(len(others), 1)


def _nearest(manifest: IndexManifest, trained: TrainedIndex) -> tuple[np.ndarray, np.ndarray]:
    """Return queries without a tie, (Q, C), and ids of their nearest vectors by comparing all, (Q, K + 1)."""
    ids, similarities, first = [], [], 0
    for part in parts_of(manifest):
        arrays = read_part(manifest, part, trained)
        ids.append(arrays["nearest_rows"] + first)
        similarities.append(arrays["nearest_similarities"])
        first += part.num_vectors
    all_QN = np.concatenate(similarities, axis=1)
    order_QK = best(all_QN, NUM_COMPARED)
    ids_QK = np.take_along_axis(np.concatenate(ids, axis=1), order_QK, axis=1)[:, : NEIGHBOURS + 1]
    behind_QK = np.take_along_axis(all_QN, order_QK, axis=1)[:, NEIGHBOURS:]
    is_clear_Q = (behind_QK[:, :1] - behind_QK[:, 1:] > _ROUNDING).all(axis=1)
    return trained.queries[is_clear_Q], ids_QK[is_clear_Q]
