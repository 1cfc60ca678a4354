"""Opens Parquet files, which may come from anyone, without running code that they contain.

A file's metadata names the types of its columns, and Ray Data registers a type whose values are pickles. Reading such a
column would run the code in the file, so no column of such a type is read.
"""

from __future__ import annotations

from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq


def open_parquet(
    file: IO[bytes] | pa.NativeFile, uri: str, metadata: pq.FileMetaData | None = None, buffer_bytes: int = 0
) -> pq.ParquetFile:
    """Open a Parquet file for reading; the caller must close ``file``.

    Args:
        file: the file, open for random access.
        uri: name of the file in messages.
        metadata: the file's metadata, if they are known, so that they are not read again.
        buffer_bytes: number of bytes of a column in a row group that are read at a time; 0 reads all at once.

    Raises:
        pa.ArrowInvalid: it is no Parquet file, or a column or a part of one has a type that is defined by Python code.
        OSError: the file is damaged, or its storage does not answer.
    """
    try:
        parquet = pq.ParquetFile(file, metadata=metadata, buffer_size=buffer_bytes, pre_buffer=not buffer_bytes)
    except pa.ArrowInvalid as error:
        raise pa.ArrowInvalid(f"cannot read {uri}: {error}") from error
    for field in parquet.schema_arrow:
        if _runs_python(field.type):
            raise pa.ArrowInvalid(
                f"cannot read {uri}: its column {field.name!r} is of type {field.type}, whose values may be code: "
                "write plain strings, numbers or bytes"
            )
    return parquet


def _runs_python(kind: pa.DataType) -> bool:
    """Return True if reading values calls a registered Python class; Arrow's own types, such as UUIDs, do not."""
    if isinstance(kind, pa.ExtensionType):
        return True
    if pa.types.is_dictionary(kind):
        return _runs_python(kind.value_type)
    return any(_runs_python(kind.field(i).type) for i in range(kind.num_fields))
