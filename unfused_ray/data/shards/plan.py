"""What an ingest will write: which clips, in which order, cut into shards of one split each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import pyarrow as pa

from unfused_ray.config import PrepareConfig
from unfused_ray.data.shards.ledger import Ledger
from unfused_ray.data.sources.items import select

REPORTS = "_ingest"
_MIN_UNITS = 16
_MIN_CLIPS_PER_SHARD = 64


@dataclass(frozen=True)
class Part:
    """Source clips of one shard: rows ``start`` to ``stop`` of the plan's items."""

    split: str
    start: int
    stop: int
    max_rows: int
    """Most clips of a row group."""


@dataclass(frozen=True)
class Plan:
    """The clips an ingest takes, in the order in which they are read, and how they become shards."""

    config: PrepareConfig
    items: pa.Table
    """Rows of ``ITEMS``."""
    parts: tuple[Part, ...]
    ledger: Ledger
    """Of the finished shards; its digest identifies what is written, as far as that does not depend on the audio."""

    @classmethod
    def of(cls, config: PrepareConfig, listed: pa.Table) -> Plan:
        """Plan the ingest of listed clips, rows of ``ITEMS``."""
        items = select(listed, config.fraction, config.seed)
        digest = hashlib.sha256(json.dumps(stored(config), sort_keys=True).encode())
        for column in ("key", "uri", "labels", "split", "group"):
            for value in items[column].to_pylist():
                digest.update(repr(value).encode() + b"\0")
        ledger = Ledger(config.output, REPORTS, config.reads, stored(config), digest.hexdigest())
        return cls(config, items, tuple(cut(items["split"].to_pylist(), config.clips_per_shard)), ledger)


def cut(splits: Sequence[str], clips_per_shard: int) -> Iterator[Part]:
    """Cut clips that lie together by split into shards of one split each.

    A small split gets smaller shards and row groups, so that all CPUs and workers have their share. The shards of a
    split are of equal size, as near as can be, and so are a shard's row groups.

    Args:
        splits: of each clip.
        clips_per_shard: at most.
    """
    first = 0
    for split, run in groupby(splits):
        num_clips = sum(1 for _ in run)
        share = max(1, num_clips // _MIN_UNITS)
        num_shards = -(-num_clips // min(clips_per_shard, max(share, _MIN_CLIPS_PER_SHARD)))
        edges = [first + num_clips * number // num_shards for number in range(num_shards + 1)]
        for start, stop in pairwise(edges):
            num_row_groups = -(-(stop - start) // share)
            yield Part(split, start, stop, max_rows=-(-(stop - start) // num_row_groups))
        first += num_clips


def stored(config: PrepareConfig) -> dict[str, Any]:
    """The configuration as the manifest keeps it: what decides the bytes, not where they lie."""
    unused = {"source"} if config.task else {"task", "root"}
    return config.model_dump(mode="json", exclude={"output", "preview", *unused})
