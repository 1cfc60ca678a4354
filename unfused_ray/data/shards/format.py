"""The shard format, which the ingest writes and everything else reads.

A prepared source is a folder::

    manifest.json        written last: shards with their split, row groups, size, SHA-256, statistics; configuration;
                         the summary of labels, of recordings in two splits, and of columns and files taken or left
    00000.parquet …      one row per clip, see SCHEMA, all of one split; the row group is the unit of reading
    rejects.parquet      key, reason and detail of every clip that was set aside
    warnings.parquet     key, reason and detail of every clip that was kept although something is wrong with it
    statistics-….json    log-mel statistics of further front ends, computed later

A clip is identified by its ``clip_id``, a dense int64: its place when all rows of a run are laid end to end, in the
order of the sources, then of their shards in the run's splits, then of the rows. It is not stored, because it follows
from the manifests' counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from unfused_ray import storage
from unfused_ray.config import FrontEndConfig
from unfused_ray.data.shards.summary import SourceSummary

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_STATISTICS = "statistics-"
_STATISTICS_VERSION = 1

SCHEMA = pa.schema(
    [
        pa.field("audio", pa.binary(), nullable=False),  # FLAC, mono, 16 bit, at the front end's sample rate
        pa.field("num_samples", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),  # the source's own name of the clip
        pa.field("labels", pa.list_(pa.string()), nullable=False),
        pa.field("split", pa.string(), nullable=False),  # "" if the source has none
        pa.field("group", pa.string(), nullable=False),  # from the source; "" if there is none
    ]
)


@dataclass(frozen=True)
class Statistics:
    """Sums over every log-mel value of a set of clips; the sums of two sets add up to those of their union."""

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
    """Split of its clips; "" if the source has none."""
    row_groups: tuple[int, ...]
    """Clips of each row group."""
    seconds: float
    """Seconds of audio."""
    num_bytes: int
    sha256: str
    statistics: dict[str, Statistics]
    """Statistics by the digest of the front end that they were computed with."""

    @property
    def num_clips(self) -> int:
        """Clips of the shard."""
        return sum(self.row_groups)


@dataclass(frozen=True)
class Manifest:
    """Describes a prepared source, or some splits of it. Its file is written last: a source with a manifest is
    whole."""

    uri: str
    """Folder of the source. Not stored, because a source may be moved."""
    shards: tuple[Shard, ...]
    rejects: dict[str, int]
    """Clips set aside from the whole source, by reason."""
    config: dict[str, Any]
    """The ingest configuration."""
    warnings: dict[str, int] = field(default_factory=dict)
    """Warnings of clips that were kept, by reason."""
    summary: SourceSummary | None = None
    """Counts of the whole source; None if an older version prepared it."""
    contents: str = ""
    """Digest of the configuration and of the source's clips as they were listed: their names, labels, splits and
    groups, not their audio. Empty if an older version prepared it."""

    @cached_property
    def front_end(self) -> FrontEndConfig:
        """The front end that the source was prepared with."""
        return FrontEndConfig(**self.config["front_end"])

    @cached_property
    def num_clips(self) -> int:
        """Clips of all shards."""
        return sum(shard.num_clips for shard in self.shards)

    @property
    def seconds(self) -> float:
        """Seconds of audio in all shards."""
        return sum(shard.seconds for shard in self.shards)

    @property
    def clips_by_split(self) -> dict[str, int]:
        """Number of clips by split."""
        counts: dict[str, int] = {}
        for shard in self.shards:
            counts[shard.split] = counts.get(shard.split, 0) + shard.num_clips
        return counts

    @cached_property
    def checksum(self) -> str:
        """Checksum of the contents; it changes when any shard changes."""
        return storage.sha256("".join(shard.sha256 for shard in self.shards).encode())

    def statistics(self, front_end: FrontEndConfig) -> Statistics | None:
        """Return the log-mel statistics of all shards under ``front_end``; None if a shard lacks them."""
        return add_statistics([shard.statistics.get(front_end.digest()) for shard in self.shards])

    def select(self, splits: Sequence[str]) -> Self:
        """Select the shards of these splits.

        Raises:
            ValueError: the source has no clip of these splits.
        """
        shards = tuple(shard for shard in self.shards if shard.split in splits)
        if not shards:
            raise ValueError(
                f"splits={tuple(splits)} select no clip of {self.uri}, which has "
                f"{', '.join(f'{count} of {split!r}' for split, count in self.clips_by_split.items())} "
                "('' is no split). Name one of these, or leave the source out"
            )
        return replace(self, shards=shards)

    @classmethod
    def load(cls, uri: str) -> Self:
        """Read the manifest of the source at ``uri``.

        Raises:
            FileNotFoundError: there is no whole source.
            ValueError: the manifest, or a file of later statistics, is damaged or was written by another version of
                the format.
        """
        path = storage.join(uri, MANIFEST)
        if not storage.exists(path):
            raise FileNotFoundError(
                f"{uri} holds no {MANIFEST}: it is not a prepared source, or its ingest has not finished. "
                f"Run unfused-ray prepare with --output {uri}"
            )
        remedy = "it holds the vectors of an embedding, or was written by another version. Prepare the source again, "
        raw = storage.read_json(path, FORMAT_VERSION, f"{remedy}to another output")
        try:
            manifest: Self = TypeAdapter(cls).validate_python({**raw, "uri": uri})
        except ValidationError as error:
            raise ValueError(
                f"{path} is not as unfused-ray prepare has written it ({error}): copy it, or prepare the source again"
            ) from error
        return manifest._with_later_statistics()

    def _with_later_statistics(self) -> Self:
        """Add the statistics of these shards that were computed after the ingest."""
        shards = list(self.shards)
        for uri in storage.list_files(self.uri):
            if storage.name(uri).startswith(_STATISTICS):
                digest, found = _read_statistics(uri)
                for i, shard in enumerate(shards):
                    if sums := found.get(shard.sha256):
                        shards[i] = replace(shard, statistics={**shard.statistics, digest: sums})
        return replace(self, shards=tuple(shards))

    def save(self) -> None:
        """Write the manifest atomically: from then on the source is whole."""
        raw = {
            "num_clips": self.num_clips,
            "shards": [asdict(shard) for shard in self.shards],
            "rejects": self.rejects,
            "warnings": self.warnings,
            "config": self.config,
            "summary": asdict(self.summary) if self.summary else None,
            "contents": self.contents,
        }
        storage.write_json(storage.join(self.uri, MANIFEST), raw, FORMAT_VERSION)


def refuse_other_rate(manifests: Sequence[Manifest], sample_rate: int, whose: str = "the encoder") -> None:
    """Refuse prepared sources whose sample rate differs from the one that is needed.

    Args:
        manifests: manifests of the sources.
        sample_rate: the rate that is needed, in Hz.
        whose: what has that rate, or the field that sets it; for the message.

    Raises:
        ValueError: names the source and both rates.
    """
    for manifest in manifests:
        if (stored := manifest.front_end.sample_rate) != sample_rate:
            raise ValueError(
                f"{manifest.uri} is at {stored} Hz, {whose} at {sample_rate} Hz: prepare the source at that rate"
            )


def save_statistics(manifest: Manifest, front_end: FrontEndConfig) -> None:
    """Store the shards' statistics under a front end other than the ingest's, in a file beside the manifest."""
    digest = front_end.digest()
    # The file covers the whole source: this manifest may hold only some splits, and statistics of the others may be
    # stored already.
    known = {shard.sha256: shard.statistics for shard in (*Manifest.load(manifest.uri).shards, *manifest.shards)}
    sums = {sha256: asdict(statistics[digest]) for sha256, statistics in known.items() if digest in statistics}
    content = {"front_end": digest, "shards": sums}
    storage.write_json(storage.join(manifest.uri, f"{_STATISTICS}{digest}.json"), content, _STATISTICS_VERSION)


def _read_statistics(uri: str) -> tuple[str, dict[str, Statistics]]:
    """Read the digest of the front end, and the statistics by the SHA-256 of their shard, from a file of
    :func:`save_statistics`; the oldest files name no version and count as version 1.

    Raises:
        ValueError: the file is damaged, or has another version.
    """
    raw = storage.read_json(uri)
    if (version := raw.get("format_version", 1)) != _STATISTICS_VERSION:
        raise ValueError(
            f"{uri} has format_version {version}, this version reads {_STATISTICS_VERSION}: delete it: it is computed "
            "again"
        )
    try:
        return raw["front_end"], TypeAdapter(dict[str, Statistics]).validate_python(raw["shards"])
    except (KeyError, ValidationError) as error:
        raise ValueError(f"{uri} is damaged ({error}): delete it: it is computed again") from error


def add_statistics(parts: Sequence[Statistics | None]) -> Statistics | None:
    """Add up statistics in order; None if one is missing."""
    known = [part for part in parts if part is not None]
    return sum(known, Statistics()) if len(known) == len(parts) else None
