"""The embedding bank: the newest embedding of every clip, in one or several shards, and its clustering.

Blocks of ``BLOCK_ROWS`` clip_ids are dealt to the S shards in turn: block j lies on shard j mod S. So every block is
whole on its shard, and labels do not depend on S, because k-means adds the blocks' sums exactly. This module does not
use Ray: shards are objects of this process, or proxies of objects elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from unfused_ray import storage
from unfused_ray.audio import randomness
from unfused_ray.clustering import health, kmeans
from unfused_ray.clustering.assignment import Assignment
from unfused_ray.clustering.bank_shard import BankShard, Census
from unfused_ray.clustering.rows import BLOCK_ROWS

FORMAT_VERSION = 1
_MANIFEST = "bank.json"


class Shards(Protocol):
    """The shards of a bank, in whichever process they are."""

    def __len__(self) -> int:
        """Number of shards, S."""
        ...

    def broadcast(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of every shard with the same arguments."""
        ...

    def scatter(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call a method of every shard, each with its own arguments."""
        ...


class LocalShards:
    """Shards in this process."""

    def __init__(self, shards: Sequence[BankShard]) -> None:
        self._shards = shards

    def __len__(self) -> int:
        return len(self._shards)

    def broadcast(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of every shard with the same arguments."""
        return [getattr(shard, method)(*arguments) for shard in self._shards]

    def scatter(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call a method of every shard, each with its own arguments."""
        return [getattr(shard, method)(*own) for shard, own in zip(self._shards, arguments, strict=True)]


class Bank:
    """The embeddings of N clips, as points for k-means, and their clustering."""

    def __init__(self, shards: Shards, num_clips: int, dim: int) -> None:
        self._shards = shards
        self.num_rows = num_clips
        self.dim = dim

    def push(self, clip_ids: np.ndarray, rows: np.ndarray) -> None:
        """Store rows from :func:`~unfused_ray.clustering.rows.normalize_rows`; a clip pushed before gets the new row.

        Raises:
            ValueError: the rows do not fit the clip_ids or the bank.
        """
        if rows.shape != (len(clip_ids), self.dim):
            raise ValueError(
                f"embeddings of shape {rows.shape} must be ({len(clip_ids)}, {self.dim}): clips, dimensions"
            )
        if len(clip_ids) and not (clip_ids.min() >= 0 and clip_ids.max() < self.num_rows):
            raise ValueError(
                f"clip_ids from {clip_ids.min()} to {clip_ids.max()} must lie in 0 … {self.num_rows - 1}: "
                "leave out padding"
            )
        owners = self._owners(clip_ids)
        self._shards.scatter("push", [(clip_ids[own], rows[own]) for own in owners])

    def gather(self, ids: np.ndarray) -> np.ndarray:
        """Return the float16 rows of these ids."""
        owners = self._owners(ids)
        rows = np.empty((len(ids), self.dim), np.float16)
        for own, found in zip(owners, self._shards.scatter("gather", [(ids[own],) for own in owners]), strict=True):
            rows[own] = found
        return rows

    def sums(self, centroids_KD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return sum and number of the rows nearest to each centroid."""
        sums, counts = zip(*self._shards.broadcast("sums", centroids_KD), strict=True)
        return sum(sums), sum(counts)

    def assign(self, centroids_KD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return each row's nearest centroid, and the similarity with it."""
        num_blocks = -(-self.num_rows // BLOCK_ROWS)
        labels = np.empty((num_blocks, BLOCK_ROWS), np.int32)
        similarities = np.empty((num_blocks, BLOCK_ROWS), np.float32)
        for shard, (found, nearest) in enumerate(self._shards.broadcast("assign", centroids_KD)):
            labels[shard :: len(self._shards)] = found.reshape(-1, BLOCK_ROWS)
            similarities[shard :: len(self._shards)] = nearest.reshape(-1, BLOCK_ROWS)
        return labels.ravel()[: self.num_rows], similarities.ravel()[: self.num_rows]

    def cluster(
        self, epoch: int, num_clusters: Sequence[int], iterations: int, seed: int, previous: Assignment | None = None
    ) -> Assignment:
        """Cluster all clips, anew for each head; clips not pushed since the last clustering keep their embedding.

        Args:
            epoch: the epoch that will train on the labels.
            num_clusters: K, number of clusters, of each head.
            iterations: number of iterations of Lloyd's algorithm.
            seed: seed of the starts, together with the epoch and the head.
            previous: the assignment to compare with.

        Raises:
            RuntimeError: a clip was never pushed.
            ValueError: all embeddings are zero.
        """
        census = sum(self._shards.broadcast("census"), Census(0, [], 0, 0, 0))
        if census.never_pushed:
            raise RuntimeError(
                f"{census.never_pushed} of {self.num_rows} clips have no embedding (the first: clip_ids "
                f"{census.first_never_pushed}): push every clip once before the first assignment"
            )
        figures = {
            "effective_rank": health.effective_rank(sum(self._shards.broadcast("gram"))),
            "unseen_clips": float(census.unseen),
            "zero_embeddings": float(census.zero),
            "non_finite_embeddings": float(census.non_finite),
        }
        heads = []
        for head, clusters in enumerate(num_clusters):
            rng = randomness.generator(seed, "kmeans", epoch, head)
            heads.append(kmeans.fit(self, clusters, iterations, rng))
            old = previous.labels[head] if previous and head < len(previous.labels) else None
            figures |= health.named(health.of_head(heads[-1], old), head, len(num_clusters))
        return Assignment(
            epoch=epoch,
            labels=tuple(head.labels for head in heads),
            distances=tuple(head.distances for head in heads),
            prototypes=tuple(head.centroids for head in heads),
            health=figures,
        )

    def begin_epoch(self) -> None:
        """Restart the counts of unseen clips and refused rows."""
        self._shards.broadcast("begin_epoch")

    def save(self, folder: str) -> None:
        """Write the bank; each shard writes its own file from where it lives."""
        files = [f"shard-{shard:05d}.safetensors" for shard in range(len(self._shards))]
        self._shards.scatter("save", [(storage.join(folder, file),) for file in files])
        manifest = {"num_clips": self.num_rows, "dim": self.dim, "files": files}
        storage.write_json(storage.join(folder, _MANIFEST), manifest, FORMAT_VERSION)

    def load(self, folder: str) -> None:
        """Load the result of :meth:`save`, with any number of shards.

        Raises:
            ValueError: the bank is of other clips or dimensions, or of another version.
        """
        manifest = storage.read_json(storage.join(folder, _MANIFEST), FORMAT_VERSION, "begin the run anew")
        for name, value in {"num_clips": self.num_rows, "dim": self.dim}.items():
            if manifest[name] != value:
                raise ValueError(f"{storage.join(folder, _MANIFEST)} has {name}={manifest[name]}, this run {value}")
        self._shards.broadcast("load", [storage.join(folder, file) for file in manifest["files"]])

    def _owners(self, clip_ids: np.ndarray) -> list[np.ndarray]:
        """Return the positions of each shard's clips in ``clip_ids``."""
        shards = clip_ids // BLOCK_ROWS % len(self._shards)
        return [np.flatnonzero(shards == shard) for shard in range(len(self._shards))]
