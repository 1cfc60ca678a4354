"""Reads Parquet sources, and tells a damaged file from one that is temporarily out of reach."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from unfused_ray import storage
from unfused_ray.audio.decode import AudioError
from unfused_ray.audio.errors import may_pass
from unfused_ray.audio.formats import FIRST_BYTES, stand_in
from unfused_ray.data.sources.columns import PATHS, first_column
from unfused_ray.parquet import open_parquet

T = TypeVar("T")

_CHUNK_BYTES = 8 << 20
_BUFFER_BYTES = 16 << 20  # of a column at a time: a pandas row group may hold all clips of a file
_BATCH_ROWS = 16
_DAMAGED = (pa.ArrowException, OSError, UnicodeDecodeError)  # the exceptions that Arrow raises on senseless bytes


def read_parquet(uri: str, read: Callable[[pq.ParquetFile], T], metadata: pq.FileMetaData | None = None) -> T:
    """Open a Parquet file and return the result of ``read``.

    Arrow reports a damaged file and a lost connection in the same way. So a remote file that fails is copied and read
    again. If it cannot be copied, it is out of reach; if its copy cannot be read, it is damaged.

    Args:
        uri: path or URI of the file.
        read: function that reads from the open file.
        metadata: the file's metadata, if known; they are then not read again.

    Raises:
        AudioError: the file is missing, or the part that ``read`` reads is unreadable.
        OSError: an object store or a network folder does not answer.
    """
    try:
        with storage.open_input(uri) as file:
            if metadata is None and (found := stand_in(file.read(FIRST_BYTES))):
                raise AudioError("unreadable", f"Parquet: {found}")
            return read(open_parquet(file, uri, metadata, _BUFFER_BYTES))
    except FileNotFoundError as error:
        raise AudioError("missing", uri) from error
    except _DAMAGED as error:
        if storage.is_local(uri):
            if may_pass(error):
                raise
            raise AudioError("unreadable", f"Parquet: {error}") from error
    with storage.open_input(uri) as file, tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(file, copy, _CHUNK_BYTES)
        try:
            return read(open_parquet(copy, uri, metadata, _BUFFER_BYTES))
        except _DAMAGED as error:
            raise AudioError("unreadable", f"Parquet: {error}") from error


def read_row_group(file: pq.ParquetFile, row_group: int, columns: Sequence[str]) -> pa.Table:
    """Read all rows of a row group.

    Raises:
        pa.ArrowInvalid: the row group is damaged, or holds another number of rows than it claims, which Arrow does not
            check.
        OSError: the row group is damaged, or its storage does not answer.
    """
    table = file.read_row_group(row_group, columns=list(columns))
    _refuse_other_length(file, row_group, len(table))
    return table


def read_column(file: pq.ParquetFile, row_group: int, column: str) -> Iterator[pa.Array]:
    """Read a column of a row group a few rows at a time: all of its audio may not fit in memory.

    Raises:
        pa.ArrowInvalid, OSError: as in :func:`read_row_group`; may be raised after good rows.
    """
    held = 0
    for batch in file.iter_batches(_BATCH_ROWS, row_groups=[row_group], columns=[column], use_threads=False):
        held += len(batch)
        yield batch.column(0)
    _refuse_other_length(file, row_group, held)


def _refuse_other_length(file: pq.ParquetFile, row_group: int, held: int) -> None:
    claimed = file.metadata.row_group(row_group).num_rows
    if held != claimed:
        raise pa.ArrowInvalid(f"it claims {claimed} rows and holds {held}")


@dataclass(frozen=True)
class AudioColumn:
    """The column of a file that holds encoded audio, or names audio files."""

    name: str
    bytes: str
    """Column of the bytes: the column itself, or a field of the hub's struct of bytes and path; "" if there are no
    bytes."""
    paths: tuple[str, ...]
    """Column of the paths; empty if there are only bytes."""

    @classmethod
    def of(cls, schema: pa.Schema, features: Mapping[str, Any], wanted: str, uri: str) -> AudioColumn:
        """Find the column of audio in the file at ``uri``.

        Args:
            schema: schema of the file.
            features: descriptions of its columns in the hub's metadata.
            wanted: the configured column; "" takes the only one.
            uri: URI of the file in messages.

        Raises:
            ValueError: there is no such column, or there are several and none is configured.
        """
        columns = {field.name: column for field in schema if (column := cls._of_field(field))}
        if wanted:
            if wanted not in columns:
                raise ValueError(f"columns.audio={wanted}: {uri} has audio or paths in {', '.join(columns) or 'none'}")
            return columns[wanted]
        kinds = {name: features[name].get("_type") for name in columns if isinstance(features.get(name), dict)}
        found = [name for name in columns if kinds.get(name) == "Audio"]
        found = found or [name for name in columns if columns[name].bytes and kinds.get(name) in (None, "Value")]
        num_bytes = len(found)
        if not found and (path := first_column([*columns], PATHS)):
            found = [path]
        if len(found) == 1:
            return columns[found[0]]
        remedy = f"name one with --columns.audio ({', '.join(found)})" if found else "one must be binary, or of paths"
        if decoded := [field.name for field in schema if _is_decoded(field)]:
            remedy += (
                f". {decoded[0]} holds samples: write the audio files themselves, or FLAC of these samples, as bytes"
            )
        raise ValueError(f"{uri} has the columns {', '.join(schema.names)}, of which {num_bytes} hold bytes: {remedy}")

    @classmethod
    def _of_field(cls, field: pa.Field) -> AudioColumn | None:
        name, kind = field.name, field.type
        if _is_binary(kind):
            return cls(name, name, ())
        if _is_text(kind):
            return cls(name, "", (name,))
        if not pa.types.is_struct(kind):
            return None
        inner = {part.name: part.type for part in (kind.field(number) for number in range(kind.num_fields))}
        paths = (f"{name}.path",) if _is_text(inner.get("path")) else ()
        if "bytes" not in inner:
            if _is_decoded(field):  # the path may name other samples than the array beside it
                return None
            return cls(name, "", paths) if paths else None
        is_null = pa.types.is_null(inner["bytes"])  # in a file in which no clip has bytes
        return cls(name, f"{name}.bytes", paths) if is_null or _is_binary(inner["bytes"]) else None

    def path_of(self, record: Mapping[str, Any]) -> str:
        """Return the path in a row; "" if it has none."""
        value = record.get(self.name)
        path = value.get("path") if isinstance(value, dict) else value
        return path if isinstance(path, str) else ""


def _is_decoded(field: pa.Field) -> bool:
    """Return True for a column of samples: the hub's struct of an array and its rate, or a list called audio."""
    kind = field.type
    if pa.types.is_struct(kind):
        names = [kind.field(number).name for number in range(kind.num_fields)]
        return "array" in names and "bytes" not in names
    return field.name.casefold() == "audio" and (pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_binary(kind: pa.DataType) -> bool:
    kind = _of_values(kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _is_text(kind: pa.DataType | None) -> bool:
    kind = _of_values(kind)
    return kind is not None and (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _of_values(kind: pa.DataType | None) -> pa.DataType | None:
    """Return the value type of a dictionary column, or the type of any other column unchanged."""
    return kind.value_type if kind is not None and pa.types.is_dictionary(kind) else kind
