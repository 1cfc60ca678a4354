"""Lists the clips of Parquet files as the Hugging Face hub has them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from unfused_ray import storage
from unfused_ray.audio.decode import AudioError
from unfused_ray.data.parts.rejects import Reject
from unfused_ray.data.sources.fetch import as_reason
from unfused_ray.data.sources.items import Listing
from unfused_ray.data.sources.labels import label_name, to_labels
from unfused_ray.data.sources.parquet import audio_column, read_parquet, read_row_group

logger = logging.getLogger(__name__)

_KEY_COLUMNS = ("key", "__key__", "id", "video_id", "ytid", "fname")


def list_parquet(uri: str) -> Listing:
    """List the clips of a hub-style Parquet file without reading their audio.

    The key comes from the first of the columns key, id, video_id … that is there, else from the path in the audio
    column, else from the file's name and the row. Labels may be a list, one string, or class numbers whose names are
    in the hub's metadata; ``labels`` as one string is a list with commas.

    A damaged file is set aside, as are the rows of a damaged row group.

    Raises:
        ValueError: no column holds audio.
        OSError: an object store does not answer.
    """
    try:
        metadata, schema = read_parquet(uri, lambda file: (file.metadata, file.schema_arrow))
        with as_reason(uri), storage.open_input(uri) as file:
            num_bytes = file.size()
    except AudioError as error:
        return Listing.from_rows([], [Reject(storage.name(uri), error.reason, error.detail)])
    columns = _Columns.of(schema, uri)
    stem = storage.name(uri).removesuffix(".parquet")
    rows: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    first = 0
    for row_group in range(metadata.num_row_groups):
        num_rows = metadata.row_group(row_group).num_rows
        if not 0 <= num_rows <= num_bytes:
            detail = f"row group {row_group} of {uri} claims {num_rows} rows, the file has {num_bytes} bytes"
            rejects.append(Reject(f"{stem}:{first}", "unreadable", detail))
            break
        names = [f"{stem}:{row}" for row in range(first, first + num_rows)]
        first += len(names)
        try:
            records = columns.read(uri, row_group, metadata) if columns.wanted else [{}] * len(names)
        except AudioError as error:
            detail = f"row group {row_group} of {uri}: {error.detail}"
            rejects += [Reject(name, error.reason, detail) for name in names]
            continue
        for row, (name, record) in enumerate(zip(names, records, strict=True)):
            rows.append({"uri": uri, "row_group": row_group, "row": row, **columns.describe(record, name)})
    return Listing.from_rows(rows, rejects)


@dataclass(frozen=True)
class _Columns:
    """The columns of a file that describe its clips."""

    key: str | None
    labels: str | None
    audio: str
    class_names: list[str] | None
    """Names of classes that ``labels`` numbers."""
    wanted: list[str]
    """Columns to read."""
    split: str
    """Split that the file's name gives; "" if it gives none."""

    @classmethod
    def of(cls, schema: pa.Schema, uri: str) -> Self:
        """Find the columns of the file at ``uri``.

        Raises:
            ValueError: no column holds audio.
        """
        audio = audio_column(schema, uri)
        key = next((name for name in _KEY_COLUMNS if name in schema.names), None)
        labels = label_name(schema.names)
        wanted = [name for name in (key, labels, "split", "group") if name and name in schema.names]
        if pa.types.is_struct(schema.field(audio).type) and "path" in schema.field(audio).type.names:
            wanted.append(f"{audio}.path")
        hub_split = re.match(r"(\w+)-\d+-of-\d+", storage.name(uri).removesuffix(".parquet"))
        split = hub_split.group(1) if hub_split else ""
        return cls(key, labels, audio, _class_names(schema, labels), wanted, split)

    def read(self, uri: str, row_group: int, metadata: pq.FileMetaData) -> list[dict[str, Any]]:
        """Read them for the rows of a row group.

        Raises:
            AudioError: they cannot be read.
        """
        return read_parquet(uri, partial(_records, row_group, self.wanted), metadata)

    def describe(self, record: dict[str, Any], name: str) -> dict[str, Any]:
        """Return key, labels, split and group of a row; ``name`` is its key if it has no other."""
        path = (record.get(self.audio) or {}).get("path")
        return {
            "key": str(record.get(self.key or "") or path or name),
            "labels": to_labels(self.labels, record.get(self.labels or ""), self.class_names),
            "split": str(record.get("split") or self.split),
            "group": str(record.get("group") or ""),
        }


def _records(row_group: int, columns: Sequence[str], file: pq.ParquetFile) -> list[dict[str, Any]]:
    return read_row_group(file, row_group, columns).to_pylist()


def _class_names(schema: pa.Schema, column: str | None) -> list[str] | None:
    """Return the class names of a hub ClassLabel column, which stores numbers."""
    metadata = (schema.metadata or {}).get(b"huggingface")
    if metadata is None or column is None:
        return None
    try:
        feature = json.loads(metadata)["info"]["features"][column]
        feature = feature.get("feature", feature) if isinstance(feature, dict) else feature[0]
        names = feature.get("names")
    except (ValueError, RecursionError, AttributeError, KeyError, IndexError, TypeError) as error:
        logger.warning(
            "the metadata for the hub do not describe column %s (%r): its labels are as stored", column, error
        )
        return None
    return [str(name) for name in names] if isinstance(names, list) else None
