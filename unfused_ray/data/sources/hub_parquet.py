"""Lists the clips of Parquet files in the layout of the Hugging Face hub."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unfused_ray import storage
from unfused_ray.audio.decode import AudioError
from unfused_ray.config import ColumnsConfig
from unfused_ray.data.parts.rejects import Reject
from unfused_ray.data.sources.columns import BY_NAME, Columns, describe, first_column
from unfused_ray.data.sources.fetch import as_reason
from unfused_ray.data.sources.items import Listing
from unfused_ray.data.sources.labels import label_name
from unfused_ray.data.sources.locate import Place, refuse_credentials
from unfused_ray.data.sources.notes import Note, Notes
from unfused_ray.data.sources.parquet import AudioColumn, read_column, read_parquet, read_row_group

logger = logging.getLogger(__name__)

_JSON = "json"
_MARK_TYPES = (pa.bool_(), pa.int8(), pa.uint8(), pa.int64())
_MOST_MARKS = 20
_KEY_COLUMNS = ("key", "__key__", "id", "video_id", "ytid", "fname")


def list_parquet(uri: str, split: str = "", columns: ColumnsConfig = BY_NAME, folder: str = "") -> Listing:
    """List the clips of a hub-style Parquet file without reading their audio.

    The key comes from the first of the columns key, id, video_id … that the file has, else from the path in the audio
    column, else from the file's name and the row. If a cell has a path and no bytes, the clip is the file at that path,
    which is absolute, or relative to the Parquet file's folder, the folder above it, or ``folder``.

    A damaged file is set aside, as are the rows of a damaged row group.

    Args:
        uri: the file.
        split: split of rows that give none.
        columns: the configured columns.
        folder: folder of the source.

    Raises:
        ValueError: no column holds audio, or several do and none is configured.
        OSError: an object store does not answer.
    """
    try:
        metadata, schema = read_parquet(uri, lambda file: (file.metadata, file.schema_arrow))
        with as_reason(uri), storage.open_input(uri) as file:
            num_bytes = file.size()
    except AudioError as error:
        return Listing.from_rows([], [Reject(storage.name(uri), error.reason, error.detail)])
    table = _Table.of(uri, metadata, schema, columns)
    rejects: list[Reject] = []
    cells = list(table.cells(num_bytes, rejects))
    paths = [cell.path for cell in cells if cell.path and not cell.has_bytes]
    for path in paths:
        refuse_credentials(path, f"column {table.audio.name} of {uri}")
    place = Place.of(uri, paths, folder)
    records = [cell.record for cell in cells]
    class_names = _class_names(table.features.get(table.columns.label or ""))
    described, notes = describe(records, table.columns, [table.audio.name, table.key], split, class_names=class_names)
    rows = [
        {"key": cell.key(table.key), **table.place_of(cell, place), **row}
        for cell, row in zip(cells, described, strict=True)
    ]
    return Listing.from_rows(rows, rejects, table.notes + place.notes + notes)


class _Cell(NamedTuple):
    """A clip's row, without its audio."""

    row_group: int
    row: int
    name: str
    """Its key if the row gives no other."""
    record: Mapping[str, Any]
    path: str
    """Path in the audio column; "" if there is none."""
    has_bytes: bool

    def key(self, column: str | None) -> str:
        """Return the clip's key: the value of ``column``, or else the path or the name."""
        value = self.record.get(column or "")
        return str(value) if value not in (None, "") else self.path or self.name


@dataclass(frozen=True)
class _Table:
    """A Parquet file and the columns of it that are read."""

    uri: str
    metadata: pq.FileMetaData
    features: Mapping[str, Any]
    """Feature descriptions of the hub's ``datasets``, by column; empty if the file has none."""
    audio: AudioColumn
    columns: Columns
    key: str | None
    fields: frozenset[str]
    """Columns that are fields of the struct ``json``, which the hub makes when it converts WebDataset tars."""
    marks: Sequence[str]
    """The first columns that may each hold 0 or 1 for one class; none if another column holds the labels."""

    @classmethod
    def of(cls, uri: str, metadata: pq.FileMetaData, schema: pa.Schema, wanted: ColumnsConfig) -> _Table:
        """Choose the columns.

        Raises:
            ValueError: no column holds audio, or several do and none is configured.
        """
        features = _features(schema, uri)
        audio = AudioColumn.of(schema, features, wanted.audio, uri)
        names, fields = schema.names, frozenset[str]()
        if _JSON in names and pa.types.is_struct(struct := schema.field(_JSON).type):
            fields = frozenset(struct.field(number).name for number in range(struct.num_fields)) - {*names}
            names = [*(name for name in names if name != _JSON), *sorted(fields)]
            inner = features.get(_JSON)
            features = {**(inner if isinstance(inner, dict) else {}), **features}
        key = first_column(schema.names, _KEY_COLUMNS)
        columns = Columns.of(names, wanted, uri)
        marks = [each.name for each in schema if columns.label is None and each.type in _MARK_TYPES]
        return cls(uri, metadata, features, audio, columns, key, fields, marks[:_MOST_MARKS])

    @property
    def notes(self) -> Notes:
        """Notes on the audio and key columns that are used."""
        used = {"audio": self.audio.name, "key": self.key}
        return Counter({Note("columns used", f"{what} ← {name}", "files"): 1 for what, name in used.items() if name})

    def cells(self, num_bytes: int, rejects: list[Reject]) -> Iterator[_Cell]:
        """Yield the rows of all row groups; rows of a damaged one are added to the rejects."""
        stem = storage.name(self.uri).removesuffix(".parquet")
        wanted = list(
            dict.fromkeys([*self.columns.read, *self.marks, *([self.key] if self.key else []), *self.audio.paths])
        )
        first = 0
        for row_group in range(self.metadata.num_row_groups):
            num_rows = self.metadata.row_group(row_group).num_rows
            place = f"row group {row_group} of {self.uri}"
            if not 0 <= num_rows <= num_bytes:
                detail = f"{place} claims {num_rows} rows, the file has {num_bytes} bytes"
                rejects.append(Reject(f"{stem}:{first}", "unreadable", detail))
                return
            names = [f"{stem}:{row}" for row in range(first, first + num_rows)]
            first += num_rows
            try:
                records = self._read(row_group, wanted) if wanted else [{}] * num_rows
                has_bytes = self._have_bytes(row_group, num_rows)
            except AudioError as error:
                rejects += [Reject(name, error.reason, f"{place}: {error.detail}") for name in names]
                continue
            for row, (name, record) in enumerate(zip(names, records, strict=True)):
                yield _Cell(row_group, row, name, record, self.audio.path_of(record), has_bytes[row])

    def place_of(self, cell: _Cell, place: Place) -> dict[str, Any]:
        """Return the place of a clip's bytes: in this file, or in the file that its cell names."""
        if cell.path and not cell.has_bytes:
            return {"uri": place.locate(cell.path)}
        return {"uri": self.uri, "row_group": cell.row_group, "row": cell.row, "column": self.audio.name}

    def _have_bytes(self, row_group: int, num_rows: int) -> Sequence[bool]:
        """Return which rows of a row group hold bytes; the column is read only if its statistics do not tell."""
        if not self.audio.paths:
            return [True] * num_rows
        if not self.audio.bytes:
            return [False] * num_rows
        group = self.metadata.row_group(row_group)
        chunks = (group.column(number) for number in range(group.num_columns))
        try:
            statistics = next((chunk.statistics for chunk in chunks if chunk.path_in_schema == self.audio.bytes), None)
        except UnicodeDecodeError as error:
            raise AudioError("unreadable", f"Parquet: the name of a column: {error}") from error
        nulls = statistics.null_count if statistics and statistics.has_null_count else None
        if nulls in (0, num_rows):
            return [nulls == 0] * num_rows
        return read_parquet(self.uri, partial(_have_bytes, row_group, self.audio), self.metadata)

    def _read(self, row_group: int, columns: Sequence[str]) -> list[dict[str, Any]]:
        paths = [f"{_JSON}.{name}" if name in self.fields else name for name in columns]
        records = read_parquet(self.uri, partial(_records, row_group, paths), self.metadata)
        if self.fields.intersection(columns):
            records = [{**(record.pop(_JSON) or {}), **record} for record in records]
        for column in self.columns.may_hold_splits:
            if names := _class_names(self.features.get(column)):
                records = [record | {column: _class_name(names, record[column])} for record in records]
        return records


def _records(row_group: int, columns: Sequence[str], file: pq.ParquetFile) -> list[dict[str, Any]]:
    records = read_row_group(file, row_group, columns).to_pylist(maps_as_pydicts="lossy")
    return [{name: _decoded(value) for name, value in record.items()} for record in records]


def _decoded(value: Any) -> Any:
    """Return text for bytes, which Spark and TensorFlow write for text; bytes that are not UTF-8 become surrogates."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _have_bytes(row_group: int, audio: AudioColumn, file: pq.ParquetFile) -> list[bool]:
    columns = read_column(file, row_group, audio.bytes)
    return [is_valid for cells in columns for is_valid in pc.is_valid(pc.struct_field(cells, "bytes")).to_pylist()]


def _features(schema: pa.Schema, uri: str) -> Mapping[str, Any]:
    """Return the column descriptions that the hub's ``datasets`` writes; empty if there are none."""
    metadata = (schema.metadata or {}).get(b"huggingface")
    if metadata is None:
        return {}
    try:
        features = json.loads(metadata)["info"]["features"]
        return {str(name): feature for name, feature in features.items()}
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        logger.warning("the metadata for the hub in %s do not describe its columns (%r)", uri, error)
        return {}


def _class_names(feature: Any) -> list[str] | None:
    """Return the class names of a ClassLabel column, which stores numbers; for a struct, those of its labels field."""
    for _ in range(8):
        if isinstance(feature, list) and feature:
            feature = feature[0]
        elif isinstance(feature, dict):
            if isinstance(names := feature.get("names"), list):
                return [str(name) for name in names]
            field = label_name(feature)
            feature = feature.get("feature" if field is None or "_type" in feature else field)
    return None


def _class_name(names: Sequence[str], number: Any) -> Any:
    """Return the name of a class; "" for -1, the hub's number for no class; any other value unchanged."""
    if not isinstance(number, int) or number >= len(names):
        return number
    return names[number] if number >= 0 else ""
