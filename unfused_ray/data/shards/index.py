"""The clips of a run by clip_id: some splits of several prepared sources, laid end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, SupportsIndex, overload

import numpy as np
import pyarrow as pa

from unfused_ray import storage
from unfused_ray.config import FrontEndConfig
from unfused_ray.data.shards.format import SCHEMA, Manifest, Shard, Statistics, add_statistics
from unfused_ray.parquet import open_parquet


@dataclass(frozen=True)
class Unit:
    """A row group of a shard, which one read operation fetches."""

    uri: str
    row_group: int
    num_clips: int
    first_clip_id: int
    sha256: str
    """SHA-256 of the whole shard."""


class Units(Sequence[Unit]):
    """The row groups of some sources, laid end to end; each ``Unit`` is made when it is asked for.

    They take twelve bytes per unit. A run of 10⁷ clips of 10 s has 200,000 units, and every actor of Ray Data holds a
    copy.
    """

    def __init__(self, manifests: Sequence[Manifest]) -> None:
        shards = [shard for manifest in manifests for shard in manifest.shards]
        self._uris = [storage.join(manifest.uri, shard.file) for manifest in manifests for shard in manifest.shards]
        self._sha256 = [shard.sha256 for shard in shards]
        self._first_units = np.cumsum([0, *(len(shard.row_groups) for shard in shards)])
        self.num_clips = np.fromiter(chain.from_iterable(shard.row_groups for shard in shards), np.int32)
        """Clips of each unit: int32, ``(units,)``."""
        self._first_clip_ids = np.cumsum(self.num_clips, dtype=np.int64) - self.num_clips

    def __len__(self) -> int:
        return len(self.num_clips)

    @overload
    def __getitem__(self, place: SupportsIndex) -> Unit: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Unit, ...]: ...

    def __getitem__(self, place: SupportsIndex | slice) -> Unit | tuple[Unit, ...]:
        if isinstance(place, slice):
            return tuple(self[i] for i in range(len(self))[place])
        i = range(len(self))[place]
        shard = int(np.searchsorted(self._first_units, i, side="right")) - 1
        row_group = i - int(self._first_units[shard])
        num_clips, first_clip_id = int(self.num_clips[i]), int(self._first_clip_ids[i])
        return Unit(self._uris[shard], row_group, num_clips, first_clip_id, self._sha256[shard])


class ClipIndex:
    """The clips of one run: some splits of several prepared sources, laid end to end.

    Memory grows with the units (row groups of about 16 MB), not with the clips.

    Args:
        manifests: the sources; ``self.manifests`` keeps their shards of the splits.
        splits: splits to take; None takes all.

    Raises:
        ValueError: there is no source, or a source has no clip of the splits.
    """

    def __init__(self, manifests: Sequence[Manifest], splits: Sequence[str] | None = None) -> None:
        if not manifests:
            raise ValueError("data=() names no prepared source: give a folder written by unfused-ray prepare")
        self.manifests = tuple(manifests if splits is None else (manifest.select(splits) for manifest in manifests))
        self.units = Units(self.manifests)
        self.num_clips = int(self.units.num_clips.sum(dtype=np.int64))
        self._ends = np.cumsum([manifest.num_clips for manifest in self.manifests])

    @classmethod
    def load(cls, uris: Sequence[str], splits: Sequence[str] | None) -> ClipIndex:
        """Read the manifests of the prepared sources at ``uris``; take the clips of ``splits``, or all if None.

        Raises:
            FileNotFoundError, ValueError: there is no source, a source holds no clip of the splits, or no source has
                one of the splits other than "" and "train".
        """
        manifests = [Manifest.load(uri) for uri in uris]
        there = set[str]().union(*(manifest.clips_by_split for manifest in manifests))
        if manifests and (unknown := [split for split in splits or () if split not in {"", "train", *there}]):
            raise ValueError(
                f"splits={tuple(splits or ())}: no clip of {', '.join(uris)} is of the split {unknown[0]!r}. There are "
                f"{', '.join(map(repr, sorted(there)))} ('' is no split)"
            )
        return cls(manifests, splits)

    @property
    def checksums(self) -> list[str]:
        """Checksum of the selected shards of each source; a checkpoint keeps them."""
        return [manifest.checksum for manifest in self.manifests]

    def source_of(self, clip_id: int) -> Manifest:
        """Return the prepared source of a clip."""
        return self.manifests[int(np.searchsorted(self._ends, clip_id, side="right"))]

    def statistics(self, front_end: FrontEndConfig) -> Statistics | None:
        """Return the log-mel statistics of all clips under ``front_end``; None if a shard lacks them."""
        return add_statistics([manifest.statistics(front_end) for manifest in self.manifests])

    def column(self, name: str) -> list[Any]:
        """Read a metadata column (``key``, ``labels``, ``split``, ``group``, ``num_samples``) of all clips, by clip_id.

        Memory grows with the clips, so this is for evaluation and pictures, not for the training path.
        """
        values: list[Any] = []
        for manifest in self.manifests:
            for shard in manifest.shards:
                uri = storage.join(manifest.uri, shard.file)
                with storage.open_input(uri) as file:
                    values.extend(open_parquet(file, uri).read([name])[name].to_pylist())
        return values


def units_of(manifest: Manifest, shard: Shard) -> list[Unit]:
    """Return the row groups of one shard; their clip ids count from its first clip."""
    return list(Units([replace(manifest, shards=(shard,))]))


def read_unit(unit: Unit, columns: Sequence[str]) -> pa.Table:
    """Read columns of one row group.

    Raises:
        pa.ArrowInvalid: the row group holds other clips or columns than the ingest wrote, or cannot be read.
        OSError: the row group cannot be read, or its storage does not answer.
    """
    with storage.open_input(unit.uri) as file:
        table = open_parquet(file, unit.uri).read_row_group(unit.row_group, columns=list(columns))
    # Arrow silently leaves out columns that are not there. The comparison is by type, not by sets of fields: lists
    # whose items have other names in Parquet are equal, but their hashes are not.
    types = {field.name: field.type for field in table.schema}
    if len(table) != unit.num_clips or types != {name: SCHEMA.field(name).type for name in columns}:
        found = ", ".join(f"{field.name} ({field.type})" for field in table.schema)
        raise pa.ArrowInvalid(
            f"row group {unit.row_group} of {unit.uri} has {len(table)} clips with the columns {found or '(none)'}, "
            f"but {unit.num_clips} with {', '.join(columns)} are expected, as ingest writes them"
        )
    return table


def labels_to_ids(labels: Sequence[Sequence[str]]) -> tuple[np.ndarray, list[str]]:
    """Number the first label of each clip: int64 ids, -1 without a label, and the sorted table of names."""
    names = sorted({clip[0] for clip in labels if clip})
    index = {name: i for i, name in enumerate(names)}
    return np.array([index[clip[0]] if clip else -1 for clip in labels], np.int64), names
