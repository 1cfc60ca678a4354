"""The clips of an index: their recordings, the fields that filter them, and the place of their audio."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unfused_ray import storage
from unfused_ray.config import SearchConfig
from unfused_ray.data.sources.notes import first_of
from unfused_ray.embedding.vectors import from_source, within_source
from unfused_ray.parquet import open_parquet
from unfused_ray.retrieval.format import CLIPS, REMEDY, IndexManifest, IndexPart, read_checked, split_key
from unfused_ray.retrieval.stored import parts_of

SAME_SECONDS = 0.5 / 16_000
"""Times and lengths that differ by less than this count as equal: they are sums and differences of rounded times."""


@dataclass(frozen=True)
class Clip:
    """The audio of a vector, and its place."""

    id: int
    """Row of the vector in the index."""
    source: str
    """Name of the clip's source in the index."""
    key: str
    recording: str
    labels: tuple[str, ...]
    split: str
    group: str
    start_seconds: float
    """Start of the vector's audio within the clip, in seconds."""
    end_seconds: float
    piece_seconds: float
    """Start of the clip within its prepared recording, in seconds, if it is a piece of one; else 0."""
    recording_seconds: float
    """Start of the vector's audio within the recording's file, in seconds."""
    place: dict[str, Any]
    """Place of the clip's audio, in a listing's fields."""


class _Numbers(NamedTuple):
    """Numbers that clips of one recording or one group share."""

    recordings: np.ndarray
    """(N,) int64."""
    groups: np.ndarray
    """(N,) int64; a group never has the number of a recording that stands in for a missing group."""
    is_later_piece: np.ndarray
    """(N,) bool, True for a later piece of a recording."""


class Catalogue:
    """The clips of an index by id; columns are read when needed.

    Args:
        manifest: manifest of the index.
    """

    def __init__(self, manifest: IndexManifest) -> None:
        self._manifest = manifest
        self._parts = list(parts_of(manifest))
        self._ends = np.cumsum([part.num_vectors for part in self._parts])
        self._source_ends = np.cumsum([source.num_vectors for source in manifest.sources])

    @property
    def num_vectors(self) -> int:
        """N, the number of vectors."""
        return int(self._ends[-1])

    def column(self, name: str) -> pa.ChunkedArray:
        """Read a column of all clips."""
        (column,) = self.columns([name])
        return column

    def columns(self, names: Sequence[str]) -> list[pa.ChunkedArray]:
        """Read columns of all clips."""
        tables = [self._read(part, names) for part in self._parts]
        return [pa.chunked_array([chunk for table in tables for chunk in table[name].chunks]) for name in names]

    @cached_property
    def sources(self) -> np.ndarray:
        """(N,) int64 number of the source of each clip."""
        return np.repeat(np.arange(len(self._source_ends)), np.diff(self._source_ends, prepend=0))

    @property
    def recordings(self) -> np.ndarray:
        """(N,) int64 number of each clip's recording; equal names in different sources are different recordings."""
        return self._numbers.recordings

    @property
    def groups(self) -> np.ndarray:
        """(N,) int64 number of each clip's group; a clip without a group has its recording as its group."""
        return self._numbers.groups

    @cached_property
    def _numbers(self) -> _Numbers:
        """Number the recordings and groups.

        A key such as ``user@2024`` may be the source's own, so a name alone does not make a clip a piece. An ingest
        gives the pieces of one recording a group, by default the recording's key. If the source has groups, the first
        piece has the recording's key.
        """
        columns = self.columns(["recording", "key", "group"])
        has_group = pc.not_equal(columns[2], "").to_numpy()
        # Encoded before they are joined: a column of strings holds 2 GB, the names of some 40 million windows.
        joined = pa.chunked_array([chunk for column in columns for chunk in column.chunks])
        encoded = joined.dictionary_encode().combine_chunks()
        codes = encoded.indices.to_numpy().astype(np.int64).reshape(len(columns), -1)
        recordings_N, keys_N, groups_N = codes * len(self._manifest.sources) + self.sources
        is_named = (groups_N == recordings_N) | np.isin(recordings_N, keys_N)
        is_later = (recordings_N != keys_N) & has_group & is_named
        recordings_N = np.where(is_later, recordings_N, keys_N)
        return _Numbers(recordings_N, 2 * np.where(has_group, groups_N, recordings_N) + has_group, is_later)

    def allowed(self, filters: SearchConfig) -> np.ndarray:
        """Return (N,) bool: clips that pass all filters of a search; an empty filter restricts nothing.

        Raises:
            ValueError: a filter names a split, label or source that no clip has.
        """
        passes = np.ones(self.num_vectors, bool)
        if filters.splits:
            passes &= self._has("split", filters.splits)
        if filters.labels:
            passes &= self.labelled(filters.labels)
        if filters.sources:
            names = [source.name for source in self._manifest.sources]
            _refuse_unknown("source", filters.sources, names)
            passes &= np.isin(self.sources, [names.index(name) for name in filters.sources])
        if filters.min_seconds > 0 or filters.max_seconds is not None:
            seconds = self.column("end_seconds").to_numpy() - self.column("start_seconds").to_numpy()
            longest = float("inf") if filters.max_seconds is None else filters.max_seconds
            passes &= (seconds > filters.min_seconds - SAME_SECONDS) & (seconds < longest + SAME_SECONDS)
        return passes

    def labelled(self, labels: Sequence[str]) -> np.ndarray:
        """Return (N,) bool: clips with one of these labels.

        Raises:
            ValueError: a label is of no clip.
        """
        column, wanted = self.column("labels"), pa.array(labels, pa.string())
        _refuse_unknown("label", labels, pc.unique(pc.list_flatten(column)).to_pylist())
        carries, first = np.zeros(self.num_vectors, bool), 0
        for chunk in column.chunks:  # joined, they may exceed what a column of strings holds
            rows = pc.list_parent_indices(chunk).to_numpy() + first
            carries[rows[pc.is_in(chunk.flatten(), wanted).to_numpy(zero_copy_only=False)]] = True
            first += len(chunk)
        return carries

    def find(self, key: str, source: str = "") -> np.ndarray:
        """Return the ids of the vectors of a clip, or of all pieces of a prepared recording, by its key.

        Raises:
            ValueError: no clip has the key, or several sources have it and none is named.
        """
        of_key, of_recording = (
            pc.equal(self.column(name), key).combine_chunks().to_numpy(zero_copy_only=False)
            for name in ("key", "recording")
        )
        found = of_key | (of_recording & self._numbers.is_later_piece)
        names = [each.name for each in self._manifest.sources]
        if source:
            _refuse_unknown("source", [source], names)
            found &= self.sources == names.index(source)
        ids = np.flatnonzero(found)
        if not len(ids):
            within = f" of source {source}" if source else ""
            raise ValueError(f"key={key} is not a clip{within} of {self._manifest.uri}: give a key as search shows it")
        if len(several := np.unique(self.sources[ids])) > 1:
            raise ValueError(
                f"key={key} is in {', '.join(names[number] for number in several)}: say which with --key-source …"
            )
        return ids

    def at(self, uri: str) -> np.ndarray:
        """Return the ids of the vectors whose audio is in a file."""
        uris, sources = pc.struct_field(self.column("place"), "uri"), self._manifest.sources
        firsts = [end - source.num_vectors for end, source in zip(self._source_ends.tolist(), sources, strict=True)]
        same = [
            pc.equal(uris.slice(first, source.num_vectors), within_source(uri, source.audio)).to_numpy()
            for first, source in zip(firsts, sources, strict=True)
        ]
        return np.flatnonzero(np.concatenate(same))

    def clips(self, ids: Sequence[int]) -> list[Clip]:
        """Read the clips of some ids, in the order of the ids."""
        found: dict[int, Clip] = {}
        owners = np.searchsorted(self._ends, np.asarray(ids, np.int64), side="right")
        for owner in np.unique(owners):
            part = self._parts[owner]
            first = int(self._ends[owner]) - part.num_vectors
            wanted = [int(id_) for id_, of_part in zip(ids, owners, strict=True) if of_part == owner]
            rows = self._read(part, CLIPS.names).take([id_ - first for id_ in wanted]).to_pylist()
            found |= {id_: self._clip(id_, row) for id_, row in zip(wanted, rows, strict=True)}
        return [found[int(id_)] for id_ in ids]

    def _clip(self, id_: int, row: dict[str, Any]) -> Clip:
        source = self._manifest.sources[int(np.searchsorted(self._source_ends, id_, side="right"))]
        place = row["place"] | {"uri": from_source(row["place"]["uri"], source.audio)}
        is_later = self._numbers.is_later_piece[id_]
        recording, piece_seconds = split_key(row["key"], row["clip_id"]) if is_later else (row["key"], 0.0)
        return Clip(
            id=id_,
            source=source.name,
            key=row["key"],
            recording=recording,
            labels=tuple(row["labels"] or ()),
            split=row["split"],
            group=row["group"],
            start_seconds=row["start_seconds"],
            end_seconds=row["end_seconds"],
            piece_seconds=piece_seconds,
            recording_seconds=piece_seconds + (place["start"] or 0.0) + row["start_seconds"],
            place=place,
        )

    def _has(self, name: str, values: Sequence[str]) -> np.ndarray:
        column = self.column(name)
        _refuse_unknown(name, values, pc.unique(column).to_pylist())
        return pc.is_in(column, pa.array(values, pa.string())).combine_chunks().to_numpy(zero_copy_only=False)

    def _read(self, part: IndexPart, names: Sequence[str]) -> pa.Table:
        uri = storage.join(self._manifest.uri, part.clips_file)
        try:
            table = open_parquet(io.BytesIO(read_checked(uri, part.clips_sha256)), uri).read(list(names))
        except pa.ArrowException as error:
            raise ValueError(f"{uri} holds no clips of an index ({error}): {REMEDY}") from error
        if len(table) != part.num_vectors or table.schema.names != list(names):
            raise ValueError(f"{uri} holds {len(table)} clips, its index has {part.num_vectors}: {REMEDY}")
        return table


def _refuse_unknown(kind: str, values: Sequence[str], known: Sequence[str]) -> None:
    if unknown := [value for value in values if value not in known]:
        shown = sorted(each for each in known if each)
        raise ValueError(f"no clip has {kind}={', '.join(unknown)}; there are {first_of(shown, 20) or 'none'}")
