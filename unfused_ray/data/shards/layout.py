"""Plans an ingest: which clips, in which order, cut into shards of one split each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import pyarrow as pa

from unfused_ray.config import PrepareConfig
from unfused_ray.data.parts.ledger import Ledger
from unfused_ray.data.sources.items import select

REPORTS = "_ingest"
_MIN_UNITS = 16
_MIN_CLIPS_PER_SHARD = 64


@dataclass(frozen=True)
class PlannedShard:
    """The source clips of one shard: rows ``start`` to ``stop`` of the plan's items."""

    split: str
    start: int
    stop: int
    max_rows: int
    """Largest number of clips in a row group."""

    @property
    def num_clips(self) -> int:
        """Source clips of the shard."""
        return self.stop - self.start


@dataclass(frozen=True)
class ShardLayout:
    """The clips that an ingest takes, in the order in which they are read, cut into shards."""

    config: PrepareConfig
    items: pa.Table
    """Rows of ``ITEMS``."""
    shards: tuple[PlannedShard, ...]
    ledger: Ledger
    """Records the finished shards. Its digest covers everything that decides the output, except the audio itself."""

    @classmethod
    def of(cls, config: PrepareConfig, listed: pa.Table) -> ShardLayout:
        """Lay out a listing's rows of ``ITEMS``."""
        items = select(listed, config.fraction, config.seed)
        digest = hashlib.sha256(json.dumps(stored(config), sort_keys=True).encode())
        for column in ("key", "uri", "labels", "split", "group"):
            for value in items[column].to_pylist():
                digest.update(repr(value).encode() + b"\0")
        ledger = Ledger(config.output, REPORTS, config.reads, stored(config), digest.hexdigest())
        return cls(config, items, tuple(cut(items["split"].to_pylist(), config.clips_per_shard)), ledger)


def cut(splits: Sequence[str], clips_per_shard: int) -> Iterator[PlannedShard]:
    """Cut clips, sorted by split, into shards of one split each.

    A small split gets smaller shards and row groups, so that every CPU and worker has a share. The shards of a split
    are as nearly equal in size as possible, and so are the row groups of a shard.

    Args:
        splits: the split of each clip.
        clips_per_shard: largest number of clips in a shard.
    """
    first = 0
    for split, run in groupby(splits):
        num_clips = sum(1 for _ in run)
        share = max(1, num_clips // _MIN_UNITS)
        num_shards = -(-num_clips // min(clips_per_shard, max(share, _MIN_CLIPS_PER_SHARD)))
        edges = [first + num_clips * number // num_shards for number in range(num_shards + 1)]
        for start, stop in pairwise(edges):
            num_row_groups = -(-(stop - start) // share)
            yield PlannedShard(split, start, stop, max_rows=-(-(stop - start) // num_row_groups))
        first += num_clips


def stored(config: PrepareConfig) -> dict[str, Any]:
    """Return the part of the configuration that the manifest keeps: the settings that decide the bytes, not the
    paths."""
    unused = {"source"} if config.task else {"task", "root"}
    # Left out at their defaults: outputs of older versions, which lacked these settings, would count as different.
    unused |= {
        name for name in ("columns", "unsplit") if getattr(config, name) == type(config).model_fields[name].default
    }
    return config.model_dump(mode="json", exclude={"output", "preview", "near_copies", *unused})
