"""Reads Parquet sources, and tells a damaged file from one that is out of reach for now."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from unfused_ray import storage
from unfused_ray.audio.decode import AudioError
from unfused_ray.parquet import open_parquet

T = TypeVar("T")

_CHUNK_BYTES = 8 << 20
_DAMAGED = (pa.ArrowException, OSError, UnicodeDecodeError)  # what Arrow raises on bytes that make no sense


def read_parquet(uri: str, read: Callable[[pq.ParquetFile], T], metadata: pq.FileMetaData | None = None) -> T:
    """Open a Parquet file and return ``read`` of it.

    Arrow reports a damaged file and a lost connection alike. So a remote file that fails is copied and read again: a
    file that cannot be copied is out of reach, and one whose copy cannot be read is damaged.

    Args:
        uri: path or URI of the file.
        read: reads from the open file.
        metadata: the file's metadata if they are known; they are not read again then.

    Raises:
        AudioError: the file is missing, or unreadable where ``read`` reads.
        OSError: an object store does not answer.
    """
    try:
        with storage.open_input(uri) as file:
            return read(open_parquet(file, uri, metadata))
    except FileNotFoundError as error:
        raise AudioError("missing", uri) from error
    except _DAMAGED as error:
        if storage.is_local(uri):
            raise AudioError("unreadable", f"Parquet: {error}") from error
    with storage.open_input(uri) as file, tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(file, copy, _CHUNK_BYTES)
        try:
            return read(open_parquet(copy, uri, metadata))
        except _DAMAGED as error:
            raise AudioError("unreadable", f"Parquet: {error}") from error


def read_row_group(file: pq.ParquetFile, row_group: int, columns: Sequence[str]) -> pa.Table:
    """Read all rows of a row group.

    Raises:
        pa.ArrowInvalid: it is damaged, or holds another number of rows than it claims, which Arrow lets pass.
        OSError: it is damaged, or its storage does not answer.
    """
    table = file.read_row_group(row_group, columns=list(columns))
    claimed = file.metadata.row_group(row_group).num_rows
    if len(table) != claimed:
        raise pa.ArrowInvalid(f"it claims {claimed} rows and holds {len(table)}")
    return table


def audio_column(schema: pa.Schema, uri: str) -> str:
    """Return the name of the column that holds encoded audio: binary, or the hub's struct of bytes and path.

    Raises:
        ValueError: there is no such column, or there are several and none is called audio.
    """
    found = [field.name for field in schema if _holds_bytes(field.type)]
    if "audio" in found:
        return "audio"
    if len(found) == 1:
        return found[0]
    raise ValueError(
        f"{uri} has the columns {', '.join(schema.names)}, of which {len(found)} hold bytes: "
        "the audio must be in a column 'audio', or in the only one of type binary or struct<bytes, path>"
    )


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
