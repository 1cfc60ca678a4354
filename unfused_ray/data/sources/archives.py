"""The listing of WebDataset tars and hub-style Parquet files."""

from __future__ import annotations

import io
import json
import logging
import re
import tarfile
from collections.abc import Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from unfused_ray import storage
from unfused_ray.audio.decode import AudioError
from unfused_ray.data.shards.rejects import Reject
from unfused_ray.data.sources.fetch import as_reason
from unfused_ray.data.sources.find import AUDIO_SUFFIXES
from unfused_ray.data.sources.items import Listing
from unfused_ray.data.sources.parquet import audio_column, read_parquet, read_row_group

logger = logging.getLogger(__name__)

_TAR_BUFFER_BYTES = 1 << 20  # one request to an object store brings many headers
_MAX_METADATA_BYTES = 1 << 20
_MAX_READ_BYTES = 2 << 20  # of tarfile at a time: what is read is headers, which may claim to be of any size
_DAMAGED_TAR = (tarfile.TarError, ValueError, OverflowError, RecursionError)  # what tarfile raises on damaged headers
_KEY_COLUMNS = ("key", "__key__", "id", "video_id", "ytid", "fname")
_LABEL_NAMES = ("human_labels", "labels", "label", "tags", "tag", "mids", "category")  # the first there is


def list_tar(uri: str) -> Listing:
    """List the clips of a WebDataset tar, and read their small ``.json``, ``.txt`` and ``.cls`` companions.

    A key is a member's name up to its *last* dot (AudioSet's keys hold dots). Nothing is extracted and no link is
    followed, so names such as ``../x`` are only names. Where the tar is damaged, what lies before is listed.

    Raises:
        OSError: an object store does not answer.
    """
    clips: dict[str, dict[str, Any]] = {}
    labels: dict[str, dict[str, Any]] = {}
    rejects: list[Reject] = []
    try:
        with as_reason(uri), storage.open_input(uri) as file, _TarReader(file, _TAR_BUFFER_BYTES) as buffered:
            try:
                _list_members(buffered, clips, labels, rejects)
            except _DAMAGED_TAR as error:
                raise AudioError("unreadable", f"tar file: {error}") from error
    except AudioError as error:
        rejects.append(Reject(storage.name(uri), error.reason, error.detail))
    damaged = {reject.key for reject in rejects}
    rows = [
        {**clip, **labels.get(clip["key"], {}), "uri": uri} for clip in clips.values() if clip["key"] not in damaged
    ]
    return Listing.from_rows(rows, rejects)


def _list_members(
    buffered: _TarReader, clips: dict[str, dict[str, Any]], labels: dict[str, dict[str, Any]], rejects: list[Reject]
) -> None:
    """Add a tar's clips by name, what its companions say by key, and what is set aside."""
    tar = tarfile.open(fileobj=buffered, mode="r:")  # noqa: SIM115 - it does not own the file
    for member in tar:
        buffered.refuse_outside(member, tar)
        key, dot, suffix = member.name.removeprefix("./").rpartition(".")
        if not member.isreg() or not dot:
            continue
        if f".{suffix.lower()}" in AUDIO_SUFFIXES and member.issparse():
            rejects.append(Reject(key, "unreadable", "it is sparse: its bytes do not lie in the tar as they are"))
        elif f".{suffix.lower()}" in AUDIO_SUFFIXES:
            clips[member.name] = {"key": key, "offset": member.offset_data, "num_bytes": member.size}
        elif suffix in ("json", "txt", "cls") and member.size <= _MAX_METADATA_BYTES:
            content = tar.extractfile(member)
            assert content is not None  # a regular file
            try:
                labels.setdefault(key, {}).update(_companion(suffix, content.read()))
            except (ValueError, RecursionError) as error:
                rejects.append(Reject(key, "unreadable", f"its .{suffix}: {error}"))
    buffered.seek(tar.offset)  # tarfile takes a broken header for the end, which is a block of zeros
    if buffered.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"damaged from byte {tar.offset}")


class _TarReader(io.BufferedReader):
    """A tar's bytes for ``tarfile``, which believes what headers say of sizes: those that cannot be are refused."""

    raw: pa.NativeFile

    def read(self, size: int | None = -1) -> bytes:
        """Read ``size`` bytes; a ``tarfile.ReadError`` where they are more than a header may have."""
        if size is None or not 0 <= size <= _MAX_READ_BYTES:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        return super().read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to ``offset``; a ``tarfile.ReadError`` where it lies outside of the file."""
        if whence == io.SEEK_SET and not 0 <= offset <= self.raw.size():
            raise tarfile.ReadError(f"byte {offset} lies outside of the file, which is cut off or damaged")
        return super().seek(offset, whence)

    def refuse_outside(self, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        """Refuse a member that does not end within the file, or after which ``tarfile`` would go backwards.

        Raises:
            tarfile.ReadError: names it.
        """
        end = member.offset_data + (member.size if member.isreg() and not member.issparse() else 0)
        if not (0 <= member.offset_data <= end <= self.raw.size() and tar.offset >= member.offset_data):
            raise tarfile.ReadError(f"{member.name!r}, of {member.size} bytes, does not end within the file")


def list_parquet(uri: str) -> Listing:
    """List the clips of a hub-style Parquet file without reading their audio.

    The key comes from the first column among key, id, video_id … that is there, else from the path in the audio
    column, else from the file's name and the row. Labels may be a list, one string, or class numbers whose names are
    in the hub's metadata; ``labels`` as one string is taken as a list with commas.

    A damaged file is set aside, as are the rows of a row group that is.

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
    audio = audio_column(schema, uri)
    key_column = next((name for name in _KEY_COLUMNS if name in schema.names), None)
    label_column = next((name for name in _LABEL_NAMES if name in schema.names), None)
    class_names = _class_names(schema, label_column)
    has_path = pa.types.is_struct(schema.field(audio).type) and "path" in schema.field(audio).type.names
    wanted = [name for name in (key_column, label_column, "split", "group") if name and name in schema.names]
    wanted += [f"{audio}.path"] * has_path
    stem = storage.name(uri).removesuffix(".parquet")
    hub_split = re.match(r"(\w+)-\d+-of-\d+", stem)
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
            records = read_parquet(uri, partial(_records, row_group, wanted), metadata) if wanted else [{}] * len(names)
        except AudioError as error:
            detail = f"row group {row_group} of {uri}: {error.detail}"
            rejects += [Reject(name, error.reason, detail) for name in names]
            continue
        for row, (name, record) in enumerate(zip(names, records, strict=True)):
            path = (record.get(audio) or {}).get("path")
            rows.append(
                {
                    "key": str(record.get(key_column or "") or path or name),
                    "uri": uri,
                    "row_group": row_group,
                    "row": row,
                    "labels": _label_names(label_column, record.get(label_column or ""), class_names),
                    "split": str(record.get("split") or (hub_split.group(1) if hub_split else "")),
                    "group": str(record.get("group") or ""),
                }
            )
    return Listing.from_rows(rows, rejects)


def _records(row_group: int, columns: Sequence[str], file: pq.ParquetFile) -> list[dict[str, Any]]:
    return read_row_group(file, row_group, columns).to_pylist()


def _companion(suffix: str, content: bytes) -> dict[str, Any]:
    """Labels, split and group out of a file beside a clip in a tar."""
    text = content.decode()
    if suffix != "json":
        return {"labels": [text.strip()]}
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError(f"JSON of an object is expected, this is {type(record).__name__}")
    name = next((name for name in _LABEL_NAMES if name in record), None)
    found = {"labels": _label_names(name, record[name], None)} if name else {}
    return found | {name: str(record[name]) for name in ("split", "group") if record.get(name)}


def _label_names(column: str | None, value: Any, class_names: Sequence[str] | None) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str) and column != "label":
        value = [part.strip() for part in value.split(",") if part.strip()]
    values = value if isinstance(value, list) else [value]
    if class_names:
        return [class_names[v] if isinstance(v, int) and 0 <= v < len(class_names) else str(v) for v in values]
    return [str(v) for v in values if v not in (None, "")]


def _class_names(schema: pa.Schema, column: str | None) -> list[str] | None:
    """Names of a hub ClassLabel column, which stores numbers."""
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
