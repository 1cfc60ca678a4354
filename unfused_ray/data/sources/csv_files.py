"""Lists the clips that CSV files name."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence

from unfused_ray import storage
from unfused_ray.data.parts.rejects import Reject
from unfused_ray.data.sources.items import Listing

_PATH_COLUMNS = ("files", "wav_path")
_PROBED_ROWS = 16


def list_csv(uri: str, one_of_several: bool) -> Listing:
    """List the clips that a CSV file names in a column ``files`` or ``wav_path``; the key is the path as written.

    Optional columns are ``label``, ``split`` and ``group``. Without a ``split``, one of several CSV files (train.csv,
    valid.csv …) gives its own name as the split. Paths are absolute, or relative to the CSV's folder, or to the folder
    above it if none of the first paths exists in the CSV's own. A row without a path is set aside as missing.

    Raises:
        ValueError: a column is missing, the file is not UTF-8 or no CSV, or a URI in it holds credentials.
    """
    columns, rows = _read_csv(uri)
    path_column = next((name for name in _PATH_COLUMNS if name in columns), None)
    if path_column is None:
        raise ValueError(
            f"{uri} has the columns {', '.join(columns) or '(none)'}: one of {', '.join(_PATH_COLUMNS)} must name the "
            "audio files. To read a folder in spite of the CSV files in it, give a pattern such as folder/*.wav"
        )
    for line, row in rows:
        _refuse_credentials(row[path_column] or "", f"line {line} of {uri}")
    records = [row for _, row in rows if _can_be_path(row[path_column])]
    rejects = [
        Reject(f"{storage.name(uri)}:{line}", "missing", f"column {path_column} names no file in line {line} of {uri}")
        for line, row in rows
        if not _can_be_path(row[path_column])
    ]
    folder = _folder_of_paths(uri, [record[path_column] for record in records[:_PROBED_ROWS]])
    split = storage.name(uri).removesuffix(".csv") if one_of_several else ""
    return Listing.from_rows(
        [
            {
                "key": record[path_column],
                "uri": _locate(record[path_column], folder),
                "labels": [record["label"]] if record.get("label") else [],
                "split": record.get("split") or split,
                "group": record.get("group") or "",
            }
            for record in records
        ],
        rejects,
    )


def _read_csv(uri: str) -> tuple[Sequence[str], list[tuple[int, dict[str, str]]]]:
    """Read the columns of a CSV file, and its rows, each with the number of the line on which it ends."""
    try:
        text = storage.read_bytes(uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{uri} is not UTF-8 text ({error}): save it as UTF-8") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    rows: list[tuple[int, dict[str, str]]] = []
    line = 0
    try:
        columns = reader.fieldnames or []
        line = reader.line_num
        for row in reader:
            line = reader.line_num
            rows.append((line, row))
    except csv.Error as error:
        raise ValueError(
            f"{uri} cannot be read as CSV from line {line + 1} on ({error}): close the quotes there, or save it again"
        ) from error
    return columns, rows


def _folder_of_paths(uri: str, paths: Sequence[str]) -> str:
    """Return the folder that the paths of the CSV at ``uri`` start from: its own, or the one above."""
    own = storage.parent(uri)
    for folder in (own, storage.parent(own)):
        if any(_is_there(_locate(path, folder)) for path in paths if not _is_absolute(path)):
            return folder
    return own


def _refuse_credentials(path: str, place: str) -> None:
    if not storage.is_local(path) and (shown := storage.masked(path)) != path:
        raise ValueError(
            f"{place} names {shown}, which holds credentials that shards and rejects would keep: put them into the "
            "environment instead (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
        )


def _can_be_path(value: str | None) -> bool:
    return bool(value and "\0" not in value)


def _is_there(uri: str) -> bool:
    # os.path's is False for what no file can be called.
    return os.path.exists(uri) if storage.is_local(uri) else storage.exists(uri)  # noqa: PTH110


def _locate(path: str, folder: str) -> str:
    return storage.absolute(path) if _is_absolute(path) else storage.join(folder, path)


def _is_absolute(path: str) -> bool:
    return path.startswith(("/", "~", "file://")) or not storage.is_local(path)
