"""Finds the files that lists name, although lists and disks differ in spelling and folders."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product, zip_longest

from unfused_ray import storage
from unfused_ray.audio.formats import SUFFIXES
from unfused_ray.data.sources.notes import Note, Notes
from unfused_ray.data.sources.sniff import hidden_as, suffix

_PROBED = 16
_PROBED_INSIDE = 4
_MAX_FOLDERS = 64
_WORD = re.compile(r"[a-z]+")
_OF_AUDIO = {*("audio", "audios", "wav", "wavs", "clip", "clips", "sound", "sounds", "recording", "recordings"),
             *("flac", "mp", "ogg")}  # fmt: skip
_OF_RATES = {"k", "khz", "hz"}
_LEFT_OUT = (".wav", ".flac", ".ogg", ".mp3", ".opus", ".m4a")


def spellings(path: str) -> Iterator[str]:
    """Yield the spellings of a path: as it is, with slashes for backslashes, and with composed and decomposed accents.

    macOS keeps names with decomposed accents (NFD), most other systems with composed ones (NFC).
    """
    slashes = path.replace("\\", "/")
    spelt = (path, slashes, *(unicodedata.normalize(form, slashes) for form in ("NFC", "NFD")))
    yield from dict.fromkeys(spelt)


@dataclass(frozen=True)
class Place:
    """The folder that a list's relative paths start from, and the suffix that the list leaves out."""

    folder: str
    suffix: str = ""
    """The suffix that the list leaves out of its names, such as ".wav"."""
    files: Mapping[str, str] = field(default_factory=dict)
    """The files that were found by name alone."""
    notes: Notes = field(default_factory=Counter)

    @classmethod
    def of(cls, uri: str, paths: Sequence[str], source: str = "", names: Sequence[Sequence[str]] = ()) -> Place:
        """Find the folder that a list's paths start from.

        The candidates are the list's own folder, the folder above, and the only folder in these two that has the first
        paths. If none has them, files are searched by name at any depth. If that fails too, a note says so.

        Args:
            uri: URI of the list.
            paths: the paths that it names.
            source: folder of the source, where the paths may start too.
            names: names without suffix that each file may have instead of its path; empty for a file that has its path.

        Raises:
            ValueError: several folders in these two have the first paths.
        """
        has_names = any(names)
        probed = [] if has_names else [path for path in paths if path and not is_absolute(path)][:_PROBED]
        own = storage.parent(uri)
        above = storage.parent(own)
        endings = ("",) if any(suffix(path) in SUFFIXES for path in probed) else ("", *_LEFT_OUT)
        for folder, ending in product((own, above, *([source] if source else [])), endings):
            if any(as_spelt(storage.join(folder, path + ending)) for path in probed):
                return cls(folder, ending, notes=_noted(folder, ending) if ending else Counter())
        few = probed[:_PROBED_INSIDE]
        found = [
            (folder, ending)
            for folder, ending in product(_folders_nearby(uri) if few else [], endings)
            if all(as_spelt(storage.join(folder, path + ending)) for path in few)
        ]
        if len(found) > 1:
            folders = " and ".join(storage.join(folder, f"*{ending}") for folder, ending in found)
            raise ValueError(f"{uri} names {few[0]}, which is both in {folders}: write the folder into its paths")
        if found:
            return cls(*found[0], notes=_noted(*found[0]))
        wanted = {_normal(name) for path, others in zip_longest(paths, names) for name in others or [path]}
        files = _files_by_name(uri, wanted) if few or has_names else {}
        if files and all(_normal(path) in files for path in few):
            if several := [each for each in files.values() if len(each) > 1]:
                raise ValueError(
                    f"{uri} names both {several[0][0]} and {several[0][1]}: write the folder into its paths"
                )
            text = f"files were found by their names, in {own} or beside it"
            notes = Counter({Note("columns used", text, "files"): 1})
            return cls(own, files={name: each[0] for name, each in files.items()}, notes=notes)
        return cls(own, notes=_in_vain(uri, paths))

    def locate(self, path: str, names: Sequence[str] = ()) -> str:
        """Return the URI of a path of the list; its file may have one of ``names`` instead."""
        if is_absolute(path):
            return storage.absolute(path)
        by_name = (self.files[name] for name in map(_normal, names or [path]) if name in self.files)
        return next(by_name, storage.join(self.folder, path + self.suffix))


def is_absolute(path: str) -> bool:
    """Return True for a path that does not start from a list's folder."""
    return path.startswith(("/", "~", "file://")) or not storage.is_local(path)


def refuse_credentials(path: str, place: str) -> None:
    """Refuse a URI that holds credentials.

    Raises:
        ValueError: names the place where the URI stands.
    """
    if not storage.is_local(path) and (shown := storage.masked(path)) != path:
        raise ValueError(
            f"{place} names {shown}, which holds credentials that shards and rejects would keep: put them into the "
            "environment instead (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
        )


def _folders_nearby(uri: str) -> list[str]:
    """List the folders in a list's folder, and the folders beside it whose names say that they hold its audio.

    Such a name has a word for audio, and otherwise only words of the list's own path: ``frogs_audio`` belongs to
    another data set than ``birds/list.csv``.
    """
    own = storage.parent(uri)
    known = {*_OF_AUDIO, *_OF_RATES, *_words(storage.name(own)), *_words(storage.name(uri).rpartition(".")[0])}
    beside: list[str] = []
    with suppress(PermissionError):
        beside = [each for each in storage.list_folders(storage.parent(own)) if each.rstrip("/") != own]
    beside = [each for each in beside if _words(storage.name(each)) & _OF_AUDIO and _words(storage.name(each)) <= known]
    return list(dict.fromkeys([*storage.list_folders(own), *beside]))[:_MAX_FOLDERS]  # "/" lies in no other folder


def _files_by_name(uri: str, wanted: Set[str]) -> dict[str, list[str]]:
    """Find files below the folders of a list whose paths end as the list writes them, with or without suffix."""
    own = storage.parent(uri)
    folders = [own, *(each for each in _folders_nearby(uri) if storage.parent(each) != own)]
    depths = sorted({name.count("/") + 1 for name in wanted})
    found: dict[str, list[str]] = {}
    for file in (file for folder in folders for file in storage.list_files(folder, recursive=True)):
        path = storage.relative(file, storage.parent(own))
        if hidden_as(storage.relative(file, own)) or (ending := suffix(file)) not in SUFFIXES:
            continue
        for depth in depths:
            tail = _normal("/".join(path.split("/")[-depth:]))
            for name in {tail, tail[: -len(ending)]} & wanted:
                found.setdefault(name, []).append(file)
    return found


def _normal(path: str) -> str:
    return unicodedata.normalize("NFC", path.replace("\\", "/")).removeprefix("./")


def _in_vain(uri: str, paths: Sequence[str]) -> Notes:
    """Note that a list's first paths are not there; nothing is noted if one of the absolute ones is."""
    few = [path for path in paths if path and storage.is_local(path)][:_PROBED]
    if not few or any(as_spelt(storage.absolute(path)) for path in few if is_absolute(path)):
        return Counter()
    text = f"none of the first {len(few)} files that {storage.name(uri)} names is there ({few[0]} …)"
    return Counter({Note("look again", text): 1})


def _words(name: str) -> set[str]:
    return set(_WORD.findall(name.casefold()))


def _noted(folder: str, ending: str) -> Notes:
    text = f"paths start in {folder}" + (f" and end in {ending} there" if ending else "")
    return Counter({Note("columns used", text, "files"): 1})


def as_spelt(uri: str) -> str | None:
    """Return the spelling of a URI under which a file or folder exists; None if there is none.

    In a local path, each folder may be spelt in its own way.
    """
    for spelt in spellings(uri):
        if _is_there(spelt):
            return spelt
    if not storage.is_local(uri) or uri.isascii():
        return None
    found = "/"
    for part in storage.absolute(uri.replace("\\", "/")).split("/")[1:]:
        paths = (os.path.join(found, spelt) for spelt in spellings(part))  # noqa: PTH118 - as os.path.exists
        if (found := next((path for path in paths if _is_there(path)), "")) == "":
            return None
    return found


def _is_there(uri: str) -> bool:
    # os.path.exists is False for impossible file names, where Path.exists raises.
    return os.path.exists(uri) if storage.is_local(uri) else storage.exists(uri)  # noqa: PTH110
