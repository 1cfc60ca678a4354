"""The parts of an embedding: shards or any audio, cut so that one task reads one part, clip by clip."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from unfused_ray import storage
from unfused_ray.audio.decode import AudioError, read_flac
from unfused_ray.config import EmbedConfig
from unfused_ray.data.parts.executor import Executor
from unfused_ray.data.parts.rejects import Reject, Warned
from unfused_ray.data.shards.format import MANIFEST, refuse_other_rate
from unfused_ray.data.shards.index import ClipIndex, Unit
from unfused_ray.data.sources.columns import BY_NAME
from unfused_ray.data.sources.fetch import fetch
from unfused_ray.data.sources.find import find
from unfused_ray.data.sources.listing import list_source
from unfused_ray.data.sources.notes import Notes
from unfused_ray.data.sources.pieces import pieces
from unfused_ray.data.stream.read import read_unit_if_whole
from unfused_ray.embedding.vectors import PLACE

logger = logging.getLogger(__name__)

_KEPT = ("key", "labels", "split", "group")
"""Columns that are copied to the vectors of a clip."""
_FEW_PARTS = 16
_FEW_CLIPS = 32  # enough to fill a batch of the encoder


class ClipPiece(NamedTuple):
    """A whole clip, or a piece of a long one, ready to be embedded."""

    clip_id: int | None
    """None if the source is not prepared."""
    key: str
    labels: list[str]
    split: str
    group: str
    place: Mapping[str, Any]
    """Fields of ``PLACE``; the missing ones are null."""
    start: int
    """First sample of the piece in the clip."""
    pcm: np.ndarray
    """``(samples,)`` int16, at least one."""


class Part(Protocol):
    """The clips that one task reads. It holds no audio, so it can be sent to any process."""

    @property
    def num_clips(self) -> int:
        """Clips of the part, including later rejects."""
        ...

    def pieces(self, sample_rate: int, max_seconds: float) -> Iterator[ClipPiece | Reject | Warned]:
        """Read the clips in order, long ones in pieces of ``max_seconds``.

        Raises:
            OSError: the source's object store does not answer.
        """
        ...


@dataclass(frozen=True)
class ShardPart:
    """Row groups of a prepared source."""

    units: tuple[Unit, ...]

    @property
    def num_clips(self) -> int:
        """Clips of all row groups."""
        return sum(unit.num_clips for unit in self.units)

    def pieces(self, sample_rate: int, max_seconds: float) -> Iterator[ClipPiece | Reject | Warned]:
        """Read the clips of the shards, which must be at ``sample_rate``."""
        max_samples = round(max_seconds * sample_rate)
        for unit in self.units:
            table = read_unit_if_whole(unit, ("audio", "num_samples", *_KEPT))
            for row, clip_id in enumerate(range(unit.first_clip_id, unit.first_clip_id + unit.num_clips)):
                if table is None:
                    detail = f"row group {unit.row_group} of {unit.uri} is damaged"
                    yield Reject(f"clip_id {clip_id}", "unreadable", detail)
                    continue
                kept = {name: table[name][row].as_py() for name in _KEPT}
                place = {"uri": unit.uri, "row_group": unit.row_group, "row": row, "column": "audio"}
                try:
                    pcm = read_flac(table["audio"][row].as_buffer(), 0, table["num_samples"][row].as_py())
                except AudioError as error:
                    yield Reject(kept["key"], error.reason, error.detail)
                    continue
                for start in range(0, len(pcm), max_samples):
                    yield ClipPiece(clip_id, **kept, place=place, start=start, pcm=pcm[start : start + max_samples])


@dataclass(frozen=True)
class AudioPart:
    """Listed clips of any audio: rows of ``ITEMS``."""

    items: pa.Table

    @property
    def num_clips(self) -> int:
        """Number of listed clips."""
        return len(self.items)

    def pieces(self, sample_rate: int, max_seconds: float) -> Iterator[ClipPiece | Reject | Warned]:
        """Decode the clips to ``sample_rate``."""
        for item, source in fetch(self.items):
            warnings: list[Warned] = []
            is_kept = False
            kept = {name: item[name] for name in _KEPT}
            place = {field.name: item[field.name] for field in PLACE}
            for piece in pieces(item, source, sample_rate, max_seconds, warnings.append):
                if isinstance(piece, Reject):
                    yield piece
                else:
                    is_kept = True
                    yield ClipPiece(None, **kept, place=place, start=piece.start, pcm=piece.pcm)
            if is_kept:
                yield from warnings


@dataclass(frozen=True)
class PlannedParts:
    """A source cut into the parts of an embedding."""

    parts: Sequence[Part]
    rejects: Sequence[Reject]
    """Clips that could not be listed."""
    contents: str
    """Digest of the source's clips, as far as they are known before they are read."""
    seconds: float | None
    """Seconds of audio; None if the number is not known before the audio is read."""
    notes: Notes = field(default_factory=Counter)
    """Columns and files of the source that were taken or left; empty for a prepared source, whose summary has them."""

    @property
    def num_clips(self) -> int:
        """Clips of all parts."""
        return sum(part.num_clips for part in self.parts)


def plan_parts(config: EmbedConfig, sample_rate: int, executor: Executor) -> PlannedParts:
    """List the source of an embedding, and cut it into parts.

    Args:
        config: settings of the embedding.
        sample_rate: sample rate of the encoder, in Hz.
        executor: lists archives.

    Raises:
        FileNotFoundError: the source is missing.
        ValueError: the source holds no audio, or is prepared at another sample rate, or a setting does not apply to
            such a source.
    """
    if storage.exists(storage.join(config.source, MANIFEST)):
        if config.columns != BY_NAME:
            raise ValueError(
                f"columns={config.columns!r} has no effect on the prepared source {config.source}, whose labels, "
                "splits and groups are those of its manifest: leave it out, or embed the audio it was prepared from"
            )
        index = _prepared(config)
        refuse_other_rate(index.manifests, sample_rate)
        seconds = sum(manifest.seconds for manifest in index.manifests)
        return PlannedParts(shard_parts(index, config.clips_per_part), (), index.checksums[0], seconds)
    source = find(config.source, config.output)  # first, because a missing source has no splits
    if config.splits:
        raise ValueError(
            f"splits={config.splits} select clips of prepared sources, but {config.source} holds no {MANIFEST}: leave "
            "them out, or prepare the source with unfused-ray prepare"
        )
    logger.info("reading %s (%s)", config.source, source.kind)
    listing = list_source(source, executor, config.columns)
    if not len(listing.items):
        first = [f" ({reject.key}: {reject.detail})" for reject in listing.rejects[:1]]
        raise ValueError(f"source {config.source} holds no clips{''.join(first)}")
    digest = hashlib.sha256()
    places = [field.name for field in PLACE if listing.items[field.name].null_count < len(listing.items)]
    for column in dict.fromkeys(("uri", *_KEPT, *places)):  # in a repacked tar, the place of each clip has changed
        for value in listing.items[column].to_pylist():
            digest.update(json.dumps(value).encode() + b"\0")
    parts = audio_parts(listing.items, config.clips_per_part)
    return PlannedParts(parts, listing.rejects, digest.hexdigest(), seconds=None, notes=listing.notes)


def _prepared(config: EmbedConfig) -> ClipIndex:
    """Read the manifest of a prepared source.

    Raises:
        ValueError: the source lacks a split, or the manifest is damaged or not that of a prepared source.
    """
    try:
        return ClipIndex.load([config.source], config.splits or None)
    except ValueError as error:
        if config.splits:
            raise
        raise ValueError(
            f"{error}. If this is a folder of audio with a {MANIFEST} of something else, name its files: "
            f"--source '{storage.join(config.source, '*')}'"
        ) from error


def shard_parts(index: ClipIndex, clips_per_part: int) -> list[Part]:
    """Cut a prepared source into parts of whole row groups."""
    sizes = [unit.num_clips for unit in index.units]
    return [ShardPart(index.units[part.start : part.stop]) for part in _join(sizes, clips_per_part)]


def audio_parts(items: pa.Table, clips_per_part: int) -> list[Part]:
    """Cut listed audio, rows of ``ITEMS``, into parts; a row group of a Parquet source stays in one part."""
    places = zip(items["uri"].to_pylist(), items["row_group"].to_pylist(), strict=True)
    units = (number if place[1] is None else place for number, place in enumerate(places))
    sizes = [len(list(unit)) for _, unit in groupby(units)]
    edges = np.cumsum([0, *sizes])
    return [
        AudioPart(items.take(list(range(edges[part.start], edges[part.stop]))))  # a slice would carry the whole table
        for part in _join(sizes, clips_per_part)
    ]


def _join(sizes: Sequence[int], clips_per_part: int) -> Iterator[range]:
    """Join adjacent units into parts of at least one unit and at most ``clips_per_part`` clips, fewer in small
    sources."""
    limit = min(clips_per_part, max(sum(sizes) // _FEW_PARTS, _FEW_CLIPS))
    first = num_clips = 0
    for number, size in enumerate(sizes):
        if number > first and num_clips + size > limit:
            yield range(first, number)
            first, num_clips = number, 0
        num_clips += size
    yield range(first, len(sizes))
