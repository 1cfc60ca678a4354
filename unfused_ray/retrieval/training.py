"""Trains an index: its vector space, the centroids of its lists, and its codebooks.

Shapes: N vectors, C numbers of a vector in the space, L lists, M bytes of a product-quantised code.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from unfused_ray import extras
from unfused_ray.config import IndexConfig
from unfused_ray.retrieval.format import REMEDY, IndexKind
from unfused_ray.retrieval.space import VectorSpace

if TYPE_CHECKING:
    import faiss

logger = logging.getLogger(__name__)

SAMPLE_PER_LIST = 40
"""Number of vectors on which a centroid is trained. faiss's default of 256 makes better lists, in six times the
time."""
_ITERATIONS = 8
_CODE_BYTES = 64
_CODEWORDS = 256
_SAMPLE_PER_CODEWORD = 100
"""Number of vectors on which a codeword is trained. With faiss's own 256 vectors and 25 iterations, codebooks take six
times as long and find no more (docs/log.md)."""
NUM_QUERIES = 200


@dataclass(frozen=True)
class TrainedIndex:
    """Vector space, centroids and codebooks of an index."""

    space: VectorSpace
    centroids: np.ndarray | None
    """(L, C) float32, of length 1; without centroids, all vectors are compared."""
    codebooks: np.ndarray | None
    """(M, 256, C / M) float32 codebooks of the vectors minus their centroids; without them, vectors are stored as
    float16."""
    queries: np.ndarray
    """(Q, C) float32 vectors of the index in the space, with which the recall is measured."""

    @property
    def kind(self) -> IndexKind:
        """How vectors are stored."""
        if self.centroids is None:
            return "exact"
        return "lists" if self.codebooks is None else "quantised"

    def encode(self, unit_NC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Encode vectors of the space: (N,) int32 lists, and (N, …) codes, float32, float16 or uint8 by the kind."""
        if self.centroids is None:
            return np.zeros(len(unit_NC), np.int32), unit_NC
        lists_N = _flat(self.centroids).search(unit_NC, 1)[1][:, 0].astype(np.int32)
        if self.codebooks is None:
            return lists_N, unit_NC.astype(np.float16)
        return lists_N, _quantiser(self.codebooks).compute_codes(unit_NC - self.centroids[lists_N])

    def decode(self, lists_N: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return the vectors of lists and codes: (N, C) float32, as exactly as they are stored."""
        if self.codebooks is None or self.centroids is None:
            return codes.astype(np.float32)
        return self.centroids[lists_N] + _quantiser(self.codebooks).decode(codes)  # type: ignore[call-arg, func-returns-value]

    def to_bytes(self) -> bytes:
        """Return all arrays as safetensors."""
        arrays = {
            "mean": self.space.mean,
            "components": self.space.components,
            "centroids": self.centroids,
            "codebooks": self.codebooks,
            "queries": self.queries,
        }
        return safetensors.numpy.save(
            {name: np.ascontiguousarray(array) for name, array in arrays.items() if array is not None}
        )

    @classmethod
    def from_bytes(cls, data: bytes, uri: str) -> Self:
        """Read the bytes of :meth:`to_bytes`.

        Raises:
            ValueError: the bytes are not a trained index; names ``uri``.
        """
        try:
            arrays = safetensors.numpy.load(data)
            space = VectorSpace(arrays["mean"], arrays.get("components"))
            found = cls(space, arrays.get("centroids"), arrays.get("codebooks"), arrays["queries"])
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"{uri} holds no trained index ({type(error).__name__}: {error}): {REMEDY}") from error
        if not found._fits():
            shapes = {name: array.shape for name, array in arrays.items()}
            raise ValueError(f"{uri} holds arrays that do not fit together ({shapes}): {REMEDY}")
        return found

    def _fits(self) -> bool:
        """Return True if the shapes of the arrays fit together."""
        space, books = self.space, self.codebooks
        return (
            space.mean.ndim == 1
            and (space.components is None or space.components.shape == (len(space.mean), space.dim))
            and (self.centroids is None or self.centroids.shape == (len(self.centroids), space.dim))
            and self.queries.shape == (len(self.queries), space.dim)
            and (
                books is None
                or (
                    self.centroids is not None
                    and books.ndim == 3
                    and books.shape == (len(books), _CODEWORDS, space.dim // len(books))
                )
            )
            and all(array.dtype == np.float32 for array in (space.mean, self.queries))
        )


def num_lists(num_vectors: int) -> int:
    """Return the number of lists: four times the root of the vectors, by faiss's guidelines, with enough vectors
    each."""
    return max(1, min(round(4 * math.sqrt(num_vectors)), num_vectors // SAMPLE_PER_LIST))


def kind_for(config: IndexConfig, num_vectors: int) -> IndexKind:
    """Choose how an index of ``num_vectors`` vectors stores them."""
    if num_vectors <= config.exact_up_to:
        return "exact"
    return "lists" if num_vectors <= config.quantize_above else "quantised"


def train(
    config: IndexConfig,
    num_vectors: int,
    sample_ND: np.ndarray,
    more: Callable[[VectorSpace, int], np.ndarray],
) -> TrainedIndex:
    """Train an index.

    Args:
        config: metric, sizes and seed.
        num_vectors: number of vectors of all sources.
        sample_ND: vectors to fit the space to, in a random order.
        more: draws a number of vectors in a space.

    Raises:
        ValueError: too few of the drawn vectors have a direction.
    """
    kind = kind_for(config, num_vectors)
    space = VectorSpace.fit(sample_ND, config.metric, config.components)
    if kind == "quantised":
        space = space.reordered(balanced(space.dim))
    queries_QC = space.apply(sample_ND[:NUM_QUERIES])
    if kind == "exact":
        return TrainedIndex(space, None, None, queries_QC)
    count = num_lists(num_vectors)
    logger.info("training %d lists on %d vectors", count, SAMPLE_PER_LIST * count)
    sample_NC = more(space, SAMPLE_PER_LIST * count)
    if len(sample_NC) < (fewest := 1 if kind == "lists" else _CODEWORDS):
        option = "quantize-above" if len(sample_NC) else "exact-up-to"
        raise ValueError(
            f"{len(sample_NC)} of {min(SAMPLE_PER_LIST * count, num_vectors):,} vectors that were drawn have a "
            f"direction, and {fewest} are needed to train an index of {num_vectors:,}: give a larger --{option}"
        )
    count = min(count, len(sample_NC))
    centroids_LC = _centroids(sample_NC, count, config.seed)
    if kind == "lists":
        return TrainedIndex(space, centroids_LC, None, queries_QC)
    residuals_NC = sample_NC - centroids_LC[_flat(centroids_LC).search(sample_NC, 1)[1][:, 0]]
    return TrainedIndex(space, centroids_LC, _codebooks(residuals_NC), queries_QC)


def faiss_module() -> Any:
    """Import faiss.

    Raises:
        MissingExtraError: faiss is not installed; an exact index does not need it.
    """
    extras.require("search", "faiss", "an index with lists (of more vectors than --exact-up-to)")
    return import_module("faiss")


def empty_index(trained: TrainedIndex) -> Any:
    """Make faiss's index from a trained one, without vectors."""
    faiss = faiss_module()
    assert trained.centroids is not None
    count, dim = trained.centroids.shape
    product = faiss.METRIC_INNER_PRODUCT
    coarse = _flat(trained.centroids)
    if trained.codebooks is None:
        kept = faiss.ScalarQuantizer.QT_fp16
        index = faiss.IndexIVFScalarQuantizer(coarse, dim, count, kept, product, False)
    else:
        index = faiss.IndexIVFPQ(coarse, dim, count, len(trained.codebooks), 8, product)
        index.pq = _quantiser(trained.codebooks)
    index.is_trained = True
    return index


def _flat(vectors_NC: np.ndarray) -> faiss.IndexFlatIP:
    index = faiss_module().IndexFlatIP(vectors_NC.shape[1])
    index.add(np.ascontiguousarray(vectors_NC, np.float32))
    return index


def _centroids(sample_NC: np.ndarray, count: int, seed: int) -> np.ndarray:
    dim = sample_NC.shape[1]
    options = {"niter": _ITERATIONS, "seed": seed, "spherical": True, "min_points_per_centroid": 1}
    kmeans = faiss_module().Kmeans(dim, count, max_points_per_centroid=len(sample_NC), **options)
    kmeans.train(np.ascontiguousarray(sample_NC, np.float32))
    return kmeans.centroids


def _num_bytes(dim: int) -> int:
    """Return the bytes of a code of ``dim`` numbers, such that every byte stands for equally many numbers."""
    return next(count for count in range(min(_CODE_BYTES, dim), 0, -1) if dim % count == 0)


def balanced(dim: int) -> np.ndarray:
    """Order numbers of falling variance so that each byte's numbers have about the same variance in total.

    Source: Ge et al., Optimized product quantization, 2013: the eigenvalue allocation of its parametric solution.
    """
    order_RM = np.arange(dim).reshape(-1, _num_bytes(dim))
    order_RM[1::2] = order_RM[1::2, ::-1].copy()
    return order_RM.T.ravel()


def _codebooks(residuals_NC: np.ndarray) -> np.ndarray:
    faiss, dim = faiss_module(), residuals_NC.shape[1]
    num_bytes = _num_bytes(dim)
    quantiser = faiss.ProductQuantizer(dim, num_bytes, 8)
    quantiser.cp.min_points_per_centroid = 1  # otherwise faiss would print a line for each centroid
    quantiser.cp.max_points_per_centroid, quantiser.cp.niter = _SAMPLE_PER_CODEWORD, _ITERATIONS
    quantiser.train(np.ascontiguousarray(residuals_NC, np.float32))
    return faiss.vector_to_array(quantiser.centroids).reshape(num_bytes, _CODEWORDS, dim // num_bytes).copy()


def _quantiser(codebooks: np.ndarray) -> faiss.ProductQuantizer:
    faiss = faiss_module()
    count, _, width = codebooks.shape
    quantiser = faiss.ProductQuantizer(count * width, count, 8)
    faiss.copy_array_to_vector(np.ascontiguousarray(codebooks, np.float32).ravel(), quantiser.centroids)
    return quantiser
