"""The vectors of an index in memory: compared one by one, or in inverted lists.

Shapes: N vectors, C numbers of a vector in the space.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from unfused_ray import storage
from unfused_ray.retrieval.format import REMEDY, IndexManifest, IndexPart, read_checked
from unfused_ray.retrieval.space import best
from unfused_ray.retrieval.training import TrainedIndex, empty_index, faiss_module


class StoredVectors(Protocol):
    """Vectors that can be searched; ids are their rows in the index."""

    @property
    def num_lists(self) -> int:
        """Number of inverted lists; 1 if all vectors are compared."""
        ...

    def search(
        self, query_C: np.ndarray, count: int, allowed_N: np.ndarray, lists: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of the nearest vectors and their similarities, the nearest first.

        Args:
            query_C: a vector of length 1 in the space.
            count: number of vectors to find; fewer are found if fewer are allowed or in the lists.
            allowed_N: (N,) bool, vectors that may be found.
            lists: number of inverted lists to search.
        """
        ...


class ExactVectors:
    """All vectors, compared in one matrix product.

    Args:
        vectors_NC: float32 vectors of length 1.
    """

    num_lists = 1

    def __init__(self, vectors_NC: np.ndarray) -> None:
        self.vectors_NC = vectors_NC

    def search(
        self, query_C: np.ndarray, count: int, allowed_N: np.ndarray, lists: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compare all vectors; equally near vectors keep their order."""
        similarities_N = self.vectors_NC @ query_C
        similarities_N[~allowed_N] = -np.inf
        ids = best(similarities_N[None], count)[0]
        found = similarities_N[ids]
        return ids[np.isfinite(found)], found[np.isfinite(found)]


class ListedVectors:
    """Vectors in the inverted lists of faiss.

    Args:
        trained: centroids and codebooks.
        lists_N: list of each vector.
        codes: code of each vector, float16 or uint8.
    """

    def __init__(self, trained: TrainedIndex, lists_N: np.ndarray, codes: np.ndarray) -> None:
        faiss: Any = faiss_module()
        self._index: Any = empty_index(trained)
        order = np.argsort(lists_N, kind="stable").astype(np.int64)
        ends = np.cumsum(np.bincount(lists_N, minlength=self.num_lists))
        for number, (first, stop) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            if first < stop:  # list by list, because a sorted copy of all codes would double the memory
                ids = order[first:stop]
                of_list = np.ascontiguousarray(codes[ids]).view(np.uint8)
                self._index.invlists.add_entries(number, len(ids), faiss.swig_ptr(ids), faiss.swig_ptr(of_list))
        self._index.ntotal = len(codes)

    @property
    def num_lists(self) -> int:
        """Number of inverted lists."""
        return self._index.nlist

    def search(
        self, query_C: np.ndarray, count: int, allowed_N: np.ndarray, lists: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Search the lists whose centroids are nearest."""
        faiss = faiss_module()
        options = {} if allowed_N.all() else {"sel": faiss.IDSelectorBitmap(np.packbits(allowed_N, bitorder="little"))}
        parameters = faiss.SearchParametersIVF(nprobe=lists, **options)
        similarities, ids = self._index.search(query_C[None], count, params=parameters)
        found = ids[0] >= 0
        return ids[0][found], similarities[0][found]


def load_vectors(manifest: IndexManifest, trained: TrainedIndex) -> StoredVectors:
    """Read the vectors of an index into memory.

    Raises:
        ValueError: a file is damaged, or belongs to another index.
    """
    lists, codes, first = np.zeros(manifest.num_vectors, np.int32), np.zeros((0, 0)), 0
    for part in parts_of(manifest):
        arrays = read_part(manifest, part, trained)
        if not first:
            codes = np.zeros((manifest.num_vectors, arrays["codes"].shape[1]), arrays["codes"].dtype)
        rows = slice(first, first + part.num_vectors)
        lists[rows], codes[rows] = arrays["lists"], arrays["codes"]
        first += part.num_vectors
    return ExactVectors(codes) if trained.kind == "exact" else ListedVectors(trained, lists, codes)


def parts_of(manifest: IndexManifest) -> Iterator[IndexPart]:
    """Return the parts of all sources, in the order of the vectors' ids."""
    return (part for source in manifest.sources for part in source.parts)


def load_trained(manifest: IndexManifest) -> TrainedIndex:
    """Read the trained space, centroids and codebooks of an index.

    Raises:
        ValueError: the file is damaged, or belongs to another index.
    """
    uri = storage.join(manifest.uri, manifest.trained.file)
    trained = TrainedIndex.from_bytes(read_checked(uri, manifest.trained.sha256), uri)
    if trained.kind != manifest.trained.kind or len(trained.space.mean) != manifest.encoder.dim:
        raise ValueError(f"{uri} is trained on other vectors than its index has: {REMEDY}")
    return trained


def read_part(manifest: IndexManifest, part: IndexPart, trained: TrainedIndex) -> dict[str, np.ndarray]:
    """Read the arrays of a part.

    Raises:
        ValueError: the part is damaged, or belongs to another index.
    """
    uri = storage.join(manifest.uri, part.file)
    try:
        arrays = safetensors.numpy.load(read_checked(uri, part.sha256))
        lists, codes = arrays["lists"], arrays["codes"]
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{uri} holds no part of an index ({type(error).__name__}: {error}): {REMEDY}") from error
    kind, width = {
        "exact": (np.float32, trained.space.dim),
        "lists": (np.float16, trained.space.dim),
        "quantised": (np.uint8, 0 if trained.codebooks is None else len(trained.codebooks)),
    }[trained.kind]
    num_lists = 1 if trained.centroids is None else len(trained.centroids)
    if (
        codes.shape != (part.num_vectors, width)
        or codes.dtype != kind
        or lists.shape != (part.num_vectors,)
        or lists.dtype != np.int32
        or ((lists < 0) | (lists >= num_lists)).any()
    ):
        raise ValueError(
            f"{uri} holds {codes.dtype} codes of shape {codes.shape}, which its index cannot have: {REMEDY}"
        )
    return arrays
