"""What an ingest will write: which clips, in which order, cut into shards of one split each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import pyarrow as pa

from unfused_ray import storage
from unfused_ray.config import PrepareConfig
from unfused_ray.data.ingest.items import select
from unfused_ray.data.ingest.write import REPORTS

_MIN_UNITS = 16
_MIN_CLIPS_PER_SHARD = 64
_BEGUN = "plan.json"


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
    digest: str
    """Identifies the bytes that will be written, as far as they do not depend on the audio."""

    @classmethod
    def of(cls, config: PrepareConfig, listed: pa.Table) -> Plan:
        """Plan the ingest of listed clips, rows of ``ITEMS``."""
        items = select(listed, config.fraction, config.seed)
        digest = hashlib.sha256(json.dumps(stored(config), sort_keys=True).encode())
        for column in ("key", "uri", "labels", "split", "group"):
            for value in items[column].to_pylist():
                digest.update(repr(value).encode() + b"\0")
        return cls(config, items, tuple(cut(items["split"].to_pylist(), config.clips_per_shard)), digest.hexdigest())

    def check_begun(self) -> bool:
        """Whether an interrupted ingest has begun this plan in the output.

        Raises:
            ValueError: what was begun there is another plan.
        """
        uri = storage.join(self.config.output, REPORTS, _BEGUN)
        if not storage.exists(uri):
            return False
        begun = json.loads(storage.read_bytes(uri))
        refuse_difference(begun["config"], self.config)
        if begun["plan"] != self.digest:
            raise ValueError(
                f"the clips of {self.config.source} have changed since the ingest to {self.config.output} was "
                "interrupted: delete that folder, or name another output"
            )
        return True

    def num_finished(self) -> int:
        """Shards that an interrupted ingest has left finished; their bytes are not checked."""
        reports = storage.list_files(storage.join(self.config.output, REPORTS))
        return sum(storage.name(uri) != _BEGUN for uri in reports)

    def begin(self) -> None:
        """Note in the output that this plan is begun; where it was already, clear what the interruption left.

        Raises:
            ValueError: another plan has begun there.
        """
        if self.check_begun():
            storage.delete_unfinished(self.config.output)
            storage.delete_unfinished(storage.join(self.config.output, REPORTS))
            return
        content = {"plan": self.digest, "config": stored(self.config)}
        uri = storage.join(self.config.output, REPORTS, _BEGUN)
        storage.write_bytes(uri, json.dumps(content, indent=1).encode())


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
    return config.model_dump(mode="json", exclude={"output", "preview"})


def refuse_difference(before: dict[str, Any], config: PrepareConfig) -> None:
    """Refuse an output that was prepared with another configuration.

    Raises:
        ValueError: names the fields that differ, with both values.
    """
    now = stored(config)
    differences = [
        f"{field}: {before.get(field)} there, {now.get(field)} asked for"
        for field in sorted(before.keys() | now.keys())
        if before.get(field) != now.get(field)
    ]
    if differences:
        raise ValueError(
            f"{config.output} was prepared differently ({'; '.join(differences)}): "
            "name another output, or delete that folder to prepare it again"
        )
