"""Finds the files of a source, and their kind."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from unfused_ray import storage

Kind = Literal["audio", "csv", "tar", "parquet"]

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3")
KINDS: dict[str, Kind] = {
    ".csv": "csv",
    ".tar": "tar",
    ".parquet": "parquet",
    **dict.fromkeys(AUDIO_SUFFIXES, "audio"),
}
"""Kind of a file, by its suffix in lower case."""


@dataclass(frozen=True)
class Source:
    """The files of a source, all of one kind."""

    kind: Kind
    files: tuple[str, ...]
    folder: str
    """Keys of audio files are their paths from here."""


def find(source: str) -> Source:
    """Find the files of a source and their kind.

    Args:
        source: a folder; a file; or a pattern in which ``*`` stands for any characters, ``/`` included. In a folder,
            CSV files that lie directly in it are taken; without any, the audio, tar or Parquet files at any depth.

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
        if kind := KINDS.get(_suffix(uri)):
            by_kind.setdefault(kind, []).append(uri)
    if not by_kind:
        found = f"none of its {len(files)} files ends in {', '.join(KINDS)}" if files else "there is no file in it"
        raise ValueError(f"source {source} holds no audio: {found}")
    if len(by_kind) > 1:
        raise ValueError(
            f"source {source} holds files of several kinds ({', '.join(sorted(by_kind))}): name one, "
            f"as in {storage.join(folder, '*' + _suffix(next(iter(by_kind.values()))[0]))}"
        )
    ((kind, files),) = by_kind.items()
    return Source(kind, tuple(files), folder)


def _suffix(uri: str) -> str:
    name = storage.name(uri)
    return f".{name.rpartition('.')[2].lower()}" if "." in name else ""
