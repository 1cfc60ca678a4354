"""Finds the files of a source, and their kind."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from unfused_ray import storage
from unfused_ray.audio.errors import may_pass
from unfused_ray.audio.formats import FIRST_BYTES, SUFFIXES, begins_as_audio
from unfused_ray.data.sources.folders import FolderSplits
from unfused_ray.data.sources.notes import Note, Notes, first_of
from unfused_ray.data.sources.sniff import PACKED, hidden_as, is_worth_a_look, may_hold_out, suffix
from unfused_ray.data.sources.splits import is_held_out

SourceKind = Literal["audio", "csv", "tar", "parquet"]

KINDS: dict[str, SourceKind] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".tar": "tar",
    ".parquet": "parquet",
    **dict.fromkeys(SUFFIXES, "audio"),
}
"""Kind of a file, by its suffix in lower case."""

SMALL = 8 * 2**20
"""Bytes of audio that one process prepares in about the time that Ray takes to start.

Ray took 8 s to start here, and preparing 9 MB of 1,708 clips took 8 s beside two trainings.
"""

_MANIFEST = "manifest.json"
_WRITTEN = re.compile(
    r"(part-)?\d{5}\.parquet|(rejects|warnings)\.parquet|(manifest|lease|statistics-.*)\.json|_(ingest|embed)/.*"
    r"|preview/(\d\d\.wav|views\.png)"
)
"""Paths, within an output, of the files that prepare and embed write."""
_ALWAYS_WRITTEN = ("00000.parquet", "part-00000.parquet", "rejects.parquet", "warnings.parquet", _MANIFEST)

_READERS = 16  # simultaneous requests to an object store


@dataclass(frozen=True)
class Source:
    """The files of a source, all of one kind."""

    kind: SourceKind
    files: tuple[str, ...]
    folder: str
    """Folder of the source; keys of audio files are their paths from here."""
    notes: Notes = field(default_factory=Counter)
    """Notes on files that are not read."""
    beside: tuple[str, ...] = ()
    """Audio files in a folder in which lists or Parquet files decide which clips are read."""

    @property
    def is_small(self) -> bool:
        """True if the source is local, holds its audio itself, and has at most ``SMALL`` bytes."""
        if self.kind not in ("audio", "tar") or not all(map(storage.is_local, self.files)):
            return False
        sizes = (path.stat().st_size for path in map(Path, self.files) if path.is_file())
        return sum(sizes) <= SMALL


def find(source: str, output: str = "") -> Source:
    """Find the files of a source and their kind.

    Args:
        source: a folder; a file; or a pattern in which ``*`` stands for any characters, ``/`` included. In a folder,
            the CSV and TSV files directly in it are taken, or, if there are none, the audio, tar or Parquet files at
            any depth. A file whose suffix does not tell its kind is audio if its first bytes are those of audio. Hidden
            files are left out.
        output: folder that the reading job writes to. If it lies in the source, its files are left out.

    Raises:
        FileNotFoundError: there is no such file or folder, or the pattern matches no file.
        ValueError: the source holds no audio, or files of several kinds; or it lies in an unfinished output, whose
            files would become part of it.
    """
    star = "*" in source
    folder, files, links = _files_of(source)
    is_one = files == [source]
    of_output: Notes = Counter()
    if output and not is_one:
        files, links, of_output = _without_output(source, folder, output, files, links)
    notes, by_kind, others = _sorted_out(files, folder, is_one)
    notes += of_output + _not_followed(links, folder)
    beside: list[str] = []
    if not star and not is_one:
        direct, deeper = _cut(by_kind.pop("csv", []), lambda uri: "/" not in storage.relative(uri, folder))
        others += deeper
        if direct:  # the lists decide which clips are read
            beside = by_kind.pop("audio", [])
            others += [uri for files_of_kind in by_kind.values() for uri in files_of_kind]
            by_kind = {"csv": direct}
    if not by_kind:
        held = (
            f"none of its {len(others)} files ends in {', '.join(KINDS)}, or begins as audio does"
            if others
            else "there is no file in it"
        )
        packed = [storage.name(uri) for uri in others if suffix(uri) in PACKED]
        remedy = f". Unpack {first_of(packed)}; tars are read as they are" if packed else ""
        raise ValueError(f"source {source} holds no audio: {held}{remedy}")
    if by_kind.keys() == {"audio", "parquet"}:  # the Parquet files may name these audio files
        beside = by_kind.pop("audio")
    if len(by_kind) > 1:
        raise several_kinds(source, by_kind)
    ((kind, taken),) = by_kind.items()
    return Source(kind, tuple(taken), folder, notes + _not_read(others, folder), tuple(beside))


def _files_of(source: str) -> tuple[str, list[str], dict[str, str]]:
    """Return the folder of a source, its files, and the links in it that were not followed, with their target folders.

    Raises:
        FileNotFoundError: there are no files.
    """
    base, star, _ = source.partition("*")
    if not star and not storage.is_folder(source):
        if not storage.exists(source):
            raise FileNotFoundError(f"source {source}: there is no such file or folder")
        return storage.parent(source), [source], {}
    if not star:
        return source, *storage.list_tree(source)
    folder = storage.parent(base + "x")
    files, links = storage.list_tree(folder)
    if not (files := [uri for uri in files if _matches(uri, source)]):
        raise FileNotFoundError(f"source {source}: no file matches this pattern")
    return folder, files, {link: target for link, target in links.items() if link.startswith(base)}


def _matches(uri: str, source: str) -> bool:
    """Return True if a URI matches the pattern of a source."""
    return re.fullmatch(".*".join(re.escape(part) for part in source.split("*")), uri) is not None


def _without_output(
    source: str, folder: str, output: str, files: Sequence[str], links: Mapping[str, str]
) -> tuple[list[str], dict[str, str], Notes]:
    """Leave out the files and links of an output that lies in the source's folder.

    If the output is this folder, or lies above it, files with names that the output writes are left out and counted.

    Raises:
        ValueError: the output is this folder, or lies above it; it is not finished; and the source would hold its
            files.
    """
    if not _is_within(_real(folder), _real(output)):
        inner = storage.relative(_real(output), _real(folder))
        place = storage.join(folder, inner) if _is_within(_real(output), _real(folder)) else output
        left = {link: target for link, target in links.items() if not _is_within(link, place)}
        return [uri for uri in files if not _is_within(uri, place)], left, Counter()
    is_folder = _real(folder) == _real(output)
    # A pattern such as *.wav matches no file that the output writes.
    is_apart = "*" in source and not (
        is_folder and any(_matches(storage.join(folder, name), source) for name in _ALWAYS_WRITTEN)
    )
    if not is_apart and not storage.exists(storage.join(output, _MANIFEST)):
        raise ValueError(
            f"output={output} is the folder of source={source}, or lies above it: files written there would be read "
            "as the source the next time. Name a folder beside the source, or one within it"
        )
    below = "" if is_folder else storage.relative(_real(folder), _real(output)) + "/"
    written, others = _cut(files, lambda uri: _WRITTEN.fullmatch(below + storage.relative(uri, folder)) is not None)
    notes = Counter({Note("skipped on purpose", "named as files that the output writes", "files"): len(written)})
    return others, dict(links), +notes


def _real(uri: str) -> str:
    """Return a folder with all links in its path resolved."""
    return os.path.realpath(storage.absolute(uri)) if storage.is_local(uri) else uri


def _is_within(uri: str, folder: str) -> bool:
    """Return True if a URI is a folder, or lies in it."""
    return storage.join(uri) == storage.join(folder) or storage.join(folder, storage.relative(uri, folder)) == uri


def _not_followed(links: Mapping[str, str], folder: str) -> Notes:
    """Note links to folders that are read by another path; name those links that say that the clips are held out."""
    notes: Notes = Counter()
    for link, target in links.items():
        path, real = storage.relative(link, folder), _real(folder)
        split = _split_of(path)
        split_of_target = _split_of(storage.relative(target, real)) if _is_within(target, real) else ""
        is_circle = _is_within(_real(storage.parent(link)), target)
        if is_held_out(split) and split != split_of_target and not is_circle:
            text = f"{path}, a link to a folder that is read by another path"
            notes[Note("skipped on purpose", text, held_out=True)] += 1
        else:
            notes[Note("skipped on purpose", "links to folders that are read by another path", "links")] += 1
    return notes


def _split_of(folder: str) -> str:
    """Return the split that the innermost name in a folder's path gives; "" if none does."""
    return FolderSplits([folder]).of(folder)[1]


def several_kinds(source: str, by_kind: Mapping[SourceKind, Sequence[str]]) -> ValueError:
    """Make the error that refuses a source with several kinds of files."""
    pattern = storage.join(source.partition("*")[0], "*" + suffix(next(iter(by_kind.values()))[0]))
    kinds = ", ".join(sorted(by_kind))
    return ValueError(f"source {source} holds files of several kinds ({kinds}): name one, as in {pattern}")


def _sorted_out(
    files: Sequence[str], folder: str, is_one: bool
) -> tuple[Notes, dict[SourceKind, list[str]], list[str]]:
    """Sort files by kind; return notes on hidden ones, the files of each kind, and all others.

    Args:
        files: URIs.
        folder: folder of the source.
        is_one: the source is this one file, which is read even if it is hidden.
    """
    notes: Notes = Counter()
    by_kind: dict[SourceKind, list[str]] = {}
    unknown: list[str] = []
    for uri in files:
        if not is_one and (hidden := hidden_as(storage.relative(uri, folder))):
            notes[Note("skipped on purpose", hidden, "files")] += 1
        elif (kind := KINDS.get(suffix(uri))) and (kind == "audio" or not _is_special(uri)):
            by_kind.setdefault(kind, []).append(uri)
        else:
            unknown.append(uri)
    looked_at, others = _cut(unknown, is_worth_a_look)
    with ThreadPoolExecutor(_READERS) as pool:
        is_known = dict(zip(looked_at, pool.map(_begins_as_audio, looked_at), strict=True))
    audio, unlike = _cut(looked_at, lambda uri: is_known[uri])
    if audio:
        by_kind["audio"] = sorted([*by_kind.get("audio", []), *audio])
    return notes, by_kind, [*others, *unlike]


def _begins_as_audio(uri: str) -> bool:
    """Return True if the first bytes of a file are those of audio; False also if it cannot be read."""
    if storage.is_local(uri) and not Path(storage.absolute(uri)).is_file():
        return False  # a dangling link, or a FIFO: opening one may wait for ever
    try:
        with storage.open_input(uri) as file:
            return begins_as_audio(file.read(FIRST_BYTES))
    except OSError as error:
        if storage.is_local(uri) and not may_pass(error):
            return False
        raise


def _is_special(uri: str) -> bool:
    """Return True for a FIFO, a socket or a device, which may have no end."""
    if not storage.is_local(uri):
        return False
    path = Path(storage.absolute(uri))
    return path.exists() and not path.is_file()


def _cut(uris: Sequence[str], belongs: Callable[[str], bool]) -> tuple[list[str], list[str]]:
    """Cut a list in two: the URIs that belong, and the others."""
    return [uri for uri in uris if belongs(uri)], [uri for uri in uris if not belongs(uri)]


def _not_read(uris: Sequence[str], folder: str) -> Notes:
    """Note the files that are not read, by suffix; name those that may list or hold test clips."""
    notes: Notes = Counter()
    for uri in uris:
        path = storage.relative(uri, folder)
        if may_hold_out(path):
            notes[Note("not read", path, held_out=True)] += 1
        else:
            notes[Note("not read", suffix(uri) or "no suffix", "files")] += 1
    lists = [storage.relative(uri, folder) for uri in uris if suffix(uri) in (".csv", ".tsv", ".jsonl")]
    if lists:
        notes[Note("look again", f"lists that are not read: {first_of(lists)}. Name one as the source to read it")] += 1
    return notes
