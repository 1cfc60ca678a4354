"""One shard of the embedding bank: the embeddings of every S-th block of clip_ids, and the computations on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import safetensors.numpy

from unfused_ray import storage
from unfused_ray.clustering.row_blocks import RowBlocks
from unfused_ray.clustering.rows import BLOCK_ROWS

if TYPE_CHECKING:
    from unfused_ray.clustering.nearest import Nearest

_NAMED_IDS = 10


@dataclass(frozen=True)
class Census:
    """Counts of a shard's clips; the counts of several shards can be added."""

    never_pushed: int
    first_never_pushed: list[int]
    """The lowest clip_ids of clips that were never pushed, at most ten."""
    unseen: int
    """Number of clips not pushed since the last assignment."""
    zero: int
    """Number of clips whose embedding is zero."""
    non_finite: int
    """Number of rows refused since the last assignment because they held NaN or infinity."""

    def __add__(self, other: Census) -> Census:
        first = sorted(self.first_never_pushed + other.first_never_pushed)[:_NAMED_IDS]
        return Census(
            self.never_pushed + other.never_pushed,
            first,
            self.unseen + other.unseen,
            self.zero + other.zero,
            self.non_finite + other.non_finite,
        )


class BankShard(RowBlocks):
    """The rows of the blocks ``shard``, ``shard + num_shards``, … of the bank.

    Args:
        shard: number of this shard.
        num_shards: S, number of shards.
        num_clips: N, number of clips of the whole bank.
        dim: D, size of an embedding.
        threads: number of tiles that are processed at the same time.
        nearest: finds the nearest centroids; oneDNN by default.
    """

    def __init__(
        self, shard: int, num_shards: int, num_clips: int, dim: int, threads: int, nearest: Nearest | None = None
    ) -> None:
        self.num_shards = num_shards
        self.blocks = np.arange(shard, -(-num_clips // BLOCK_ROWS), num_shards)
        clip_ids = (self.blocks[:, None] * BLOCK_ROWS + np.arange(BLOCK_ROWS)).ravel()
        self._is_clip = clip_ids < num_clips  # the last block is padded
        super().__init__(len(clip_ids), dim, threads, nearest)
        self.pushed = np.zeros(len(clip_ids), bool)
        self.seen = np.zeros(len(clip_ids), bool)
        self.non_finite = 0

    def push(self, clip_ids: np.ndarray, rows: np.ndarray) -> None:
        """Store float16 rows by clip_id; a row that is not finite is counted, and its clip keeps its earlier row (or
        zero)."""
        slots = self._slots(clip_ids)
        finite = np.isfinite(rows).all(axis=1)
        self.write(slots[finite], rows[finite])
        self.non_finite += int((~finite).sum())
        self.pushed[slots] = True
        self.seen[slots] = True

    def gather(self, ids: np.ndarray) -> np.ndarray:
        """Return the float16 rows of these clip_ids."""
        return super().gather(self._slots(ids))

    def census(self) -> Census:
        """Count this shard's clips."""
        missing = np.flatnonzero(self._is_clip & ~self.pushed)
        first = missing[:_NAMED_IDS]
        return Census(
            never_pushed=len(missing),
            first_never_pushed=(self.blocks[first // BLOCK_ROWS] * BLOCK_ROWS + first % BLOCK_ROWS).tolist(),
            unseen=int((self._is_clip & ~self.seen).sum()),
            zero=int((self._is_clip & ~self.has_direction).sum()),
            non_finite=self.non_finite,
        )

    def begin_epoch(self) -> None:
        """Restart the counts of unseen clips and refused rows."""
        self.seen[:] = False
        self.non_finite = 0

    def state(self) -> dict[str, np.ndarray]:
        """Return the state for a checkpoint, by block of clip_ids, so that any other number of shards can load it."""
        return {
            "blocks": self.blocks,
            "rows": self.rows.reshape(len(self.blocks), BLOCK_ROWS, self.rows.shape[1]),
            "pushed": self.pushed.reshape(-1, BLOCK_ROWS),
            "seen": self.seen.reshape(-1, BLOCK_ROWS),
            "non_finite": np.array([self.non_finite]),
        }

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Load those blocks of a state that belong to this shard."""
        mine = np.isin(state["blocks"], self.blocks)
        slots = self._slots((state["blocks"][mine, None] * BLOCK_ROWS + np.arange(BLOCK_ROWS)).ravel())
        self.write(slots, state["rows"][mine].reshape(len(slots), self.rows.shape[1]))
        self.pushed[slots] = state["pushed"][mine].ravel()
        self.seen[slots] = state["seen"][mine].ravel()
        if mine.any() and state["blocks"][0] in self.blocks:
            self.non_finite += int(state["non_finite"][0])  # counted once, by the shard of the file's first block

    def save(self, uri: str) -> None:
        """Write :meth:`state` as one file."""
        storage.write_bytes(uri, safetensors.numpy.save(self.state()))

    def load(self, uris: Sequence[str]) -> None:
        """Load from the files of a bank; ``uris[i]`` was written by shard i of ``len(uris)``."""
        for shard, uri in enumerate(uris):
            if any(block % len(uris) == shard for block in self.blocks.tolist()):
                self.load_state(safetensors.numpy.load(storage.read_bytes(uri)))

    def _slots(self, clip_ids: np.ndarray) -> np.ndarray:
        return clip_ids // BLOCK_ROWS // self.num_shards * BLOCK_ROWS + clip_ids % BLOCK_ROWS
