"""What kind of source a path or URI is, and the listing of folders and CSV files."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from unfused_ray import storage
from unfused_ray.data.shards.rejects import Reject
from unfused_ray.data.sources.items import Listing

Kind = Literal["audio", "csv", "tar", "parquet"]

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3")
_KINDS: dict[str, Kind] = {
    ".csv": "csv",
    ".tar": "tar",
    ".parquet": "parquet",
    **dict.fromkeys(AUDIO_SUFFIXES, "audio"),
}
_PATH_COLUMNS = ("files", "wav_path")
_PROBED_ROWS = 16


@dataclass(frozen=True)
class Source:
    """A source as found: files of one kind."""

    kind: Kind
    files: tuple[str, ...]
    folder: str
    """Keys of audio files are their paths from here."""


def find(source: str) -> Source:
    """Find the files of a source and their kind.

    Args:
        source: a folder; a file; or a pattern in which ``*`` stands for any characters, ``/`` included. A folder with
            CSV files directly in it is read by them, any other by the audio, tar or Parquet files at any depth.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: it holds no audio, or files of several kinds.
    """
    base, star, _ = source.partition("*")
    if star:
        folder = storage.parent(base + "x")
        pattern = re.compile(".*".join(re.escape(part) for part in source.split("*")))
        files = [uri for uri in storage.list_files(folder, recursive=True) if pattern.fullmatch(uri)]
    elif storage.is_folder(source):
        folder = source
        files = [uri for uri in storage.list_files(folder) if _suffix(uri) == ".csv"]
        if not files:
            files = [uri for uri in storage.list_files(folder, recursive=True) if _suffix(uri) != ".csv"]
    elif storage.exists(source):
        folder, files = storage.parent(source), [source]
    else:
        raise FileNotFoundError(f"source {source}: there is no such file or folder")
    by_kind: dict[Kind, list[str]] = {}
    for uri in files:
        if kind := _KINDS.get(_suffix(uri)):
            by_kind.setdefault(kind, []).append(uri)
    if not by_kind:
        raise ValueError(f"source {source} holds no audio: none of its {len(files)} files ends in {', '.join(_KINDS)}")
    if len(by_kind) > 1:
        raise ValueError(
            f"source {source} holds files of several kinds ({', '.join(sorted(by_kind))}): name one, "
            f"as in {storage.join(folder, '*' + _suffix(next(iter(by_kind.values()))[0]))}"
        )
    ((kind, files),) = by_kind.items()
    return Source(kind, tuple(files), folder)


def list_audio(source: Source) -> Listing:
    """List audio files; a clip's key is its path within the source."""
    return Listing.from_rows([{"key": storage.relative(uri, source.folder), "uri": uri} for uri in source.files])


def list_csv(uri: str, one_of_several: bool) -> Listing:
    """List the clips that a CSV file names, with a column ``files`` or ``wav_path``; the key is the path as written.

    Optional columns are ``label``, ``split`` and ``group``. Where there is no ``split`` and the CSV is one of several
    (train.csv, valid.csv …), its own name is the split. Paths are absolute, or relative to the CSV's folder, or, where
    none of the first is there, to the folder above it.

    A row without a path is set aside as missing.

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
    """The columns of a CSV file, and its rows, each with the number of the line on which it ends."""
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
    """The folder from which the paths of the CSV at ``uri`` are given: its own, or the one above."""
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


def _suffix(uri: str) -> str:
    name = storage.name(uri)
    return f".{name.rpartition('.')[2].lower()}" if "." in name else ""
