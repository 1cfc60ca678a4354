"""Writers of tars and of damaged Parquet files."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pyarrow.parquet as pq


def write_tar(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type = tarfile.SYMTYPE
            info.linkname = target
            tar.addfile(info)


def spoil(path: Path, row_group: int, column: str) -> None:
    """Damage a Parquet file: overwrite the header of a column's first page in a row group."""
    metadata = pq.ParquetFile(path).metadata.row_group(row_group)
    chunks = [metadata.column(number) for number in range(metadata.num_columns)]
    chunk = next(chunk for chunk in chunks if chunk.path_in_schema == column)
    offset = chunk.data_page_offset if chunk.dictionary_page_offset is None else chunk.dictionary_page_offset
    content = bytearray(path.read_bytes())
    content[offset : offset + 8] = b"\xff" * 8
    path.write_bytes(content)
