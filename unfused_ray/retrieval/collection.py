"""An open index that can be searched: its clips, and the vectors nearest to a query."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from unfused_ray.retrieval.catalogue import Catalogue
from unfused_ray.retrieval.format import IndexManifest
from unfused_ray.retrieval.space import unit
from unfused_ray.retrieval.stored import ExactVectors, StoredVectors, load_trained, load_vectors, parts_of, read_part
from unfused_ray.retrieval.training import TrainedIndex

_MORE = 4
"""A lookup asks for this many times the wanted recordings, then for this many times more."""


@dataclass(frozen=True)
class Collection:
    """The clips and vectors of an index."""

    manifest: IndexManifest
    trained: TrainedIndex
    clips: Catalogue

    @classmethod
    def open(cls, uri: str) -> Self:
        """Open the index at ``uri``, a path or URI.

        Raises:
            FileNotFoundError: there is no index.
            ValueError: the index is damaged, foreign, or of another version.
        """
        manifest = IndexManifest.load(uri)
        return cls(manifest, load_trained(manifest), Catalogue(manifest))

    @cached_property
    def stored(self) -> StoredVectors:
        """The vectors in memory."""
        return load_vectors(self.manifest, self.trained)

    def nearest(self, query_C: np.ndarray, count: int, allowed_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the vector of each recording that is nearest to the query, nearest recordings first, and similarities.

        As many inverted lists are searched as the index's recall requires, and proportionally more if few vectors are
        allowed. Fewer recordings than ``count`` are returned only after all lists have been searched.

        Args:
            query_C: vector of length 1 in the space.
            count: number of recordings.
            allowed_N: (N,) bool, vectors that may be found.
        """
        num_allowed = int(np.count_nonzero(allowed_N))
        if not num_allowed:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        most = self.stored.num_lists
        lists = min(most, -(-self.manifest.recall.searched_lists * len(allowed_N) // num_allowed))
        wanted = _MORE * count
        while True:
            ids, similarities = self.stored.search(query_C, min(wanted, num_allowed), allowed_N, lists)
            _, first = np.unique(self.clips.recordings[ids], return_index=True)
            first.sort()
            is_all = len(ids) < min(wanted, num_allowed) or wanted >= num_allowed
            if len(first) >= count or (is_all and lists == most):
                return ids[first[:count]], similarities[first[:count]]
            wanted, lists = wanted * _MORE, min(most, lists * _MORE)

    def scan(self) -> Iterator[np.ndarray]:
        """Yield all vectors in the space in the order of their ids, some (n, C) float32 at a time."""
        for part in parts_of(self.manifest):
            arrays = read_part(self.manifest, part, self.trained)
            yield unit(self.trained.decode(arrays["lists"], arrays["codes"]))

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """Return the vectors of some ids in the space, as exactly as the index stores them: (len(ids), C) float32."""
        if isinstance(self.stored, ExactVectors):
            return self.stored.vectors_NC[ids]
        found = np.empty((len(ids), self.trained.space.dim), np.float32)
        first = 0
        for part in parts_of(self.manifest):
            inside = np.flatnonzero((ids >= first) & (ids < first + part.num_vectors))
            if len(inside):
                arrays = read_part(self.manifest, part, self.trained)
                rows = ids[inside] - first
                found[inside] = self.trained.decode(arrays["lists"][rows], arrays["codes"][rows])
            first += part.num_vectors
        return unit(found)
