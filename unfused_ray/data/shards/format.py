"""The shard format: what ingest writes and everything else reads.

A prepared source is a folder::

    manifest.json        written last: shards with their split, row groups, size, SHA-256, statistics; configuration
    00000.parquet …      one row a clip, see SCHEMA, all of one split; the row group is the unit of reading
    rejects.parquet      key, reason and detail of every clip that was set aside
    statistics-….json    log-mel statistics of further front ends, computed later

A clip is known by its ``clip_id``, a dense int64: the rows of a run laid end to end, in the order of its sources, their
shards of the splits that the run is on, and their rows. It is not stored: it follows from the manifests' counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, Self, SupportsIndex, overload

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from unfused_ray import storage
from unfused_ray.config import FrontEndConfig
from unfused_ray.parquet import open_parquet

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
REJECTS = "rejects.parquet"
_STATISTICS = "statistics-"

SCHEMA = pa.schema(
    [
        pa.field("audio", pa.binary(), nullable=False),  # FLAC, mono, 16 bit, at the front end's sample rate
        pa.field("num_samples", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),  # the source's own name of the clip
        pa.field("labels", pa.list_(pa.string()), nullable=False),
        pa.field("split", pa.string(), nullable=False),  # "" where the source has none
        pa.field("group", pa.string(), nullable=False),  # what may not cross splits; "" where the source has none
    ]
)


@dataclass(frozen=True)
class Statistics:
    """Sums over every log-mel value of a set of clips; they add up exactly as the sets do."""

    count: int = 0
    sum: float = 0.0
    sum_of_squares: float = 0.0

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(self.count + other.count, self.sum + other.sum, self.sum_of_squares + other.sum_of_squares)

    @property
    def mean(self) -> float:
        """Mean of the log-mel values."""
        return self.sum / self.count

    @property
    def std(self) -> float:
        """Standard deviation of the log-mel values (population)."""
        return math.sqrt(max(self.sum_of_squares / self.count - self.mean**2, 0.0))


@dataclass(frozen=True)
class Shard:
    """One Parquet file of a prepared source: clips of one split."""

    file: str
    """Name within the source's folder."""
    split: str
    """"" where the source has none."""
    row_groups: tuple[int, ...]
    """Clips of each row group."""
    seconds: float
    """Audio in the shard."""
    num_bytes: int
    sha256: str
    statistics: dict[str, Statistics]
    """By the digest of the front end they were computed with."""

    @property
    def num_clips(self) -> int:
        """Clips of the shard."""
        return sum(self.row_groups)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        """A shard out of what ``asdict`` made of it."""
        statistics = {digest: Statistics(**sums) for digest, sums in raw["statistics"].items()}
        return cls(**{**raw, "row_groups": tuple(raw["row_groups"]), "statistics": statistics})


@dataclass(frozen=True)
class Manifest:
    """What a prepared source, or some splits of it, holds; its file is the sign that the source is whole."""

    uri: str
    """Folder of the source. Not stored: a source may be moved."""
    shards: tuple[Shard, ...]
    rejects: dict[str, int]
    """Clips set aside from the whole source, by reason."""
    config: dict[str, Any]
    """The ingest configuration."""

    @cached_property
    def num_clips(self) -> int:
        """Clips of all shards."""
        return sum(shard.num_clips for shard in self.shards)

    @property
    def seconds(self) -> float:
        """Audio in all shards."""
        return sum(shard.seconds for shard in self.shards)

    @property
    def clips_by_split(self) -> dict[str, int]:
        """Clips of every split that has any."""
        counts: dict[str, int] = {}
        for shard in self.shards:
            counts[shard.split] = counts.get(shard.split, 0) + shard.num_clips
        return counts

    @cached_property
    def checksum(self) -> str:
        """Identifies the contents: changes when any shard does."""
        return storage.sha256("".join(shard.sha256 for shard in self.shards).encode())

    def statistics(self, front_end: FrontEndConfig) -> Statistics | None:
        """Log-mel statistics of all shards under ``front_end``; None where one lacks them."""
        return _total([shard.statistics.get(front_end.digest()) for shard in self.shards])

    def select(self, splits: Sequence[str]) -> Self:
        """The part of the source that is of these splits.

        Raises:
            ValueError: it has none of them.
        """
        shards = tuple(shard for shard in self.shards if shard.split in splits)
        if not shards:
            raise ValueError(
                f"splits={tuple(splits)} take no clip of {self.uri}, which has "
                f"{', '.join(f'{count} of {split!r}' for split, count in self.clips_by_split.items())} "
                "('' is: in no split). Name one of these, or leave the source out"
            )
        return replace(self, shards=shards)

    @classmethod
    def load(cls, uri: str) -> Self:
        """Read the manifest of the source at ``uri``.

        Raises:
            FileNotFoundError: there is no whole source there.
            ValueError: it is damaged, or was written by another version of the format.
        """
        path = storage.join(uri, MANIFEST)
        if not storage.exists(path):
            raise FileNotFoundError(
                f"{uri} holds no {MANIFEST}: it is not a prepared source, or its ingest has not finished. "
                f"Run jobs/prepare.py with --output {uri}"
            )
        raw = storage.read_json(path, FORMAT_VERSION, "prepare the source again")
        try:
            shards = TypeAdapter(tuple[Shard, ...]).validate_python(raw["shards"])
            manifest = cls(uri=uri, shards=shards, rejects=raw["rejects"], config=raw["config"])
        except (KeyError, ValidationError) as error:
            raise ValueError(
                f"{path} is not as jobs/prepare.py has written it ({type(error).__name__}: {error}): copy it again, or "
                "prepare the source again"
            ) from error
        return manifest._with_later_statistics()

    def _with_later_statistics(self) -> Self:
        """Add the statistics that were computed after the ingest, where they are of these very shards."""
        shards = list(self.shards)
        for uri in storage.list_files(self.uri):
            if storage.name(uri).startswith(_STATISTICS):
                raw = storage.read_json(uri)
                for i, shard in enumerate(shards):
                    if sums := raw["shards"].get(shard.sha256):
                        statistics = {**shard.statistics, raw["front_end"]: Statistics(**sums)}
                        shards[i] = replace(shard, statistics=statistics)
        return replace(self, shards=tuple(shards))

    def save(self) -> None:
        """Write the manifest, atomically: from then on the source is whole."""
        raw = {
            "num_clips": self.num_clips,
            "shards": [asdict(shard) for shard in self.shards],
            "rejects": self.rejects,
            "config": self.config,
        }
        storage.write_json(storage.join(self.uri, MANIFEST), raw, FORMAT_VERSION)


def save_statistics(manifest: Manifest, front_end: FrontEndConfig) -> None:
    """Keep the shards' statistics under another front end than the ingest's in a file beside the manifest."""
    digest = front_end.digest()
    # Of the whole source: the manifest may be of some splits, and others' statistics be there already.
    known = {shard.sha256: shard.statistics for shard in (*Manifest.load(manifest.uri).shards, *manifest.shards)}
    sums = {sha256: asdict(statistics[digest]) for sha256, statistics in known.items() if digest in statistics}
    content = json.dumps({"front_end": digest, "shards": sums}, indent=1)
    storage.write_bytes(storage.join(manifest.uri, f"{_STATISTICS}{digest}.json"), content.encode())


def _total(parts: Sequence[Statistics | None]) -> Statistics | None:
    """Their sum, in their order; None where one is missing."""
    known = [part for part in parts if part is not None]
    return sum(known, Statistics()) if len(known) == len(parts) else None


@dataclass(frozen=True)
class Unit:
    """A row group of a shard: what one read operation fetches."""

    uri: str
    row_group: int
    num_clips: int
    first_clip_id: int
    sha256: str
    """Of the whole shard."""


class Units(Sequence[Unit]):
    """The row groups of some sources, laid end to end; each is made when it is asked for.

    Twelve bytes a unit: a run of 10⁷ clips of 10 s has 200,000 of them, and every actor of Ray Data a copy.
    """

    def __init__(self, manifests: Sequence[Manifest]) -> None:
        shards = [shard for manifest in manifests for shard in manifest.shards]
        self._uris = [storage.join(manifest.uri, shard.file) for manifest in manifests for shard in manifest.shards]
        self._sha256 = [shard.sha256 for shard in shards]
        self._first_units = np.cumsum([0, *(len(shard.row_groups) for shard in shards)])
        self.num_clips = np.fromiter(chain.from_iterable(shard.row_groups for shard in shards), np.int32)
        """Of each unit."""
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
        manifests: of the sources; ``self.manifests`` keeps of each what is of the splits.
        splits: whose clips there are; None is all.

    Raises:
        ValueError: there is no source, or one has no clip of the splits.
    """

    def __init__(self, manifests: Sequence[Manifest], splits: Sequence[str] | None = None) -> None:
        if not manifests:
            raise ValueError("data=() names no prepared source: give at least one folder written by jobs/prepare.py")
        self.manifests = tuple(manifests if splits is None else (manifest.select(splits) for manifest in manifests))
        self.units = Units(self.manifests)
        self.num_clips = int(self.units.num_clips.sum(dtype=np.int64))

    @classmethod
    def load(cls, uris: Sequence[str], splits: Sequence[str] | None) -> ClipIndex:
        """Read the manifests of the prepared sources at ``uris``, and take their clips of ``splits``; None is all."""
        return cls([Manifest.load(uri) for uri in uris], splits)

    @property
    def checksums(self) -> list[str]:
        """One checksum a source, of what is taken of it: what a checkpoint remembers of its data."""
        return [manifest.checksum for manifest in self.manifests]

    def statistics(self, front_end: FrontEndConfig) -> Statistics | None:
        """Log-mel statistics of all clips under ``front_end``; None where a shard lacks them."""
        return _total([manifest.statistics(front_end) for manifest in self.manifests])

    def column(self, name: str) -> list[Any]:
        """One metadata column (``key``, ``labels``, ``split``, ``group``, ``num_samples``) of all clips, by clip_id.

        Memory grows with the clips: for evaluation and pictures, not for the training path.
        """
        values: list[Any] = []
        for manifest in self.manifests:
            for shard in manifest.shards:
                uri = storage.join(manifest.uri, shard.file)
                with storage.open_input(uri) as file:
                    values.extend(open_parquet(file, uri).read([name])[name].to_pylist())
        return values


def read_unit(unit: Unit, columns: Sequence[str]) -> pa.Table:
    """Read columns of one row group.

    Raises:
        pa.ArrowInvalid: it holds other clips or columns than ingest wrote, or cannot be read.
        OSError: the same, or its storage does not answer.
    """
    with storage.open_input(unit.uri) as file:
        table = open_parquet(file, unit.uri).read_row_group(unit.row_group, columns=list(columns))
    # Arrow leaves out columns that are not there without a word.
    if len(table) != unit.num_clips or set(table.schema) != {SCHEMA.field(name) for name in columns}:
        found = ", ".join(f"{field.name} ({field.type})" for field in table.schema)
        raise pa.ArrowInvalid(
            f"row group {unit.row_group} of {unit.uri} has {len(table)} clips with the columns {found or '(none)'}: "
            f"{unit.num_clips} with {', '.join(columns)} as ingest writes them are expected"
        )
    return table


def labels_to_ids(labels: Sequence[Sequence[str]]) -> tuple[np.ndarray, list[str]]:
    """First label of each clip as int64 ids, and the sorted table of names; a clip without labels is -1."""
    names = sorted({clip[0] for clip in labels if clip})
    index = {name: i for i, name in enumerate(names)}
    return np.array([index[clip[0]] if clip else -1 for clip in labels], np.int64), names
