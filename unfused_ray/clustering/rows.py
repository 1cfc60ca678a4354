"""Rows to cluster: embeddings of length 1 in float16, in blocks (a shard has whole ones) and tiles (for one
product)."""

from __future__ import annotations

import numpy as np

BLOCK_ROWS = 4096
"""Number of rows that are kept together: a shard has whole blocks."""
TILE_ROWS = 2048
"""R, number of rows multiplied at once: the similarities stay in a core's cache, and few rows still occupy several
threads."""


def normalize_rows(embeddings_ND: np.ndarray) -> np.ndarray:
    """L2-normalise, then round to float16.

    A zero embedding stays zero. One that is not finite becomes NaN somewhere: the code that stores rows must check for
    it.
    """
    embeddings = np.ascontiguousarray(embeddings_ND, np.float64)
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        rows = (embeddings / np.where(norms == 0, 1, norms)).astype(np.float16)
    return rows + np.float16(0)  # -0 becomes 0: equal rows have equal bytes


def unit_rows(vectors_ND: np.ndarray) -> np.ndarray:
    """L2-normalise in the given type; a zero row stays zero."""
    norms_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return vectors_ND / np.where(norms_N1 > 0, norms_N1, 1)


def random_unit_rows(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """Return ``(count, dim)`` float32 rows of length 1, in random directions."""
    return unit_rows(rng.standard_normal((count, dim), dtype=np.float32))
