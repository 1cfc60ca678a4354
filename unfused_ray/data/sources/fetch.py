"""Opens the encoded bytes of listed clips, one clip at a time."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain, groupby
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from unfused_ray import storage
from unfused_ray.audio.decode import AudioError
from unfused_ray.audio.errors import may_pass
from unfused_ray.data.sources.locate import as_spelt, spellings
from unfused_ray.data.sources.parquet import read_column, read_parquet

_IN_MEMORY_BYTES = 64 << 20
_CHUNK_BYTES = 8 << 20


def fetch(items: pa.Table) -> Iterator[tuple[dict[str, Any], IO[bytes] | AudioError]]:
    """Open the clips of a listing in its order.

    Args:
        items: rows of ``ITEMS``; those of one Parquet row group are adjacent.

    Yields:
        A row, and its bytes as a seekable file that is open until the next one is asked for; or the error that the clip
        is set aside with.

    Raises:
        OSError: an object store or a network folder does not answer. Unlike for a bad file, trying again may help.
    """
    for place, run in groupby(items.to_pylist(), _row_group):
        if place is not None:
            yield from _fetch_rows(*place, list(run))
            continue
        for item in run:
            with ExitStack() as stack:
                source: IO[bytes] | AudioError
                try:
                    with as_reason(item["uri"]):
                        source = stack.enter_context(_open(item))
                except AudioError as error:
                    source = error
                except ValueError as error:  # an impossible path or URI, such as one with a NUL
                    source = AudioError("missing", f"{item['uri']}: {error}")
                yield item, source


def _row_group(item: Mapping[str, Any]) -> tuple[str, int, str] | None:
    """Return file, number and column of the row group that holds a clip; None for a clip outside Parquet."""
    return None if item["row_group"] is None else (item["uri"], item["row_group"], item["column"])


@contextmanager
def as_reason(uri: str) -> Iterator[None]:
    """Turn the error of a missing file, or of an unreadable local file, into the reason to set it aside.

    Raises:
        AudioError: the file is missing or unreadable.
        OSError: an object store or a network folder does not answer, or a disk is full.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise AudioError("missing", uri) from error
    except OSError as error:
        if not storage.is_local(uri) or may_pass(error):  # the file may be good
            raise
        raise AudioError("unreadable", str(error)) from error


@contextmanager
def _open(item: dict[str, Any]) -> Iterator[IO[bytes]]:
    uri, offset = item["uri"], item["offset"]
    if offset is None and len([*spellings(uri)]) > 1:
        uri = as_spelt(uri) or uri
    if offset is None and storage.is_local(uri):
        path = Path(storage.absolute(uri))
        if path.is_fifo() or path.is_char_device():  # opening one may wait for ever
            raise AudioError("unreadable", f"{uri} is no regular file")
        with path.open("rb") as file:
            yield file
        return
    # Read from a copy: libsndfile would take an error in a read through Python for a damaged file.
    with storage.open_input(uri) as file, tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as copy:
        left = file.size() if offset is None else item["num_bytes"]
        file.seek(offset or 0)
        while chunk := file.read(min(left, _CHUNK_BYTES)):
            left -= copy.write(chunk)
        copy.seek(0)
        yield copy


def _fetch_rows(
    uri: str, row_group: int, column: str, items: Sequence[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], IO[bytes] | AudioError]]:
    """Open the clips of one row group, holding only its bytes in memory."""
    wanted = {item["row"] for item in items}

    def read(file: pq.ParquetFile) -> dict[int, Any]:
        is_struct = pa.types.is_struct(file.schema_arrow.field(column).type)
        cells = chain.from_iterable(read_column(file, row_group, f"{column}.bytes" if is_struct else column))
        return {row: cell.as_py() for row, cell in enumerate(cells) if row in wanted}

    try:
        found = read_parquet(uri, read)
    except AudioError as error:
        found = dict.fromkeys(wanted, AudioError(error.reason, f"row group {row_group} of {uri}: {error.detail}"))
    for item in items:
        yield item, _cell(found[item["row"]])


def _cell(value: dict[str, Any] | bytes | AudioError | None) -> IO[bytes] | AudioError:
    if isinstance(value, AudioError):
        return value
    data = value.get("bytes") if isinstance(value, dict) else value
    return io.BytesIO(data) if data is not None else AudioError("empty", "its cell in the Parquet file holds no bytes")
