"""Splits and labels of clips from the folders in their paths. A folder with the name of a split may be a class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from unfused_ray.data.sources.notes import Note, Notes, first_of
from unfused_ray.data.sources.splits import (
    Plainness,
    is_held_out,
    named_split,
    names_recognised,
    split_of_clip,
    split_of_folder,
)


class _Said(NamedTuple):
    """The folder that gives a split to the clips in it."""

    path: str
    """Path within the source; "" for the source's own folder, or if no folder gives a split."""
    name: str = ""
    split: str = ""
    plainness: Plainness = Plainness.NONE


class FolderSplits:
    """Splits of clips by the innermost folder whose name counts.

    Within a folder that gives a split, another folder with the name of a split may be a class instead:

    - ``train`` is a class if a folder beside it gives no split and no folder beside it holds clips out.
    - A name that only begins with a split, or has one among its words, is a class unless all folders beside it give
      splits (``train/train-clean-100``, ``train/dev-clean``). A name that gives ``train`` is a class even then, if the
      outer folder gives its split more plainly and a folder beside it gives the outer split too (``test/train_horn``,
      ``test/test-clean``).

    Args:
        folders: paths of the clips' folders within the source, with ``/``.
        own: name of the source's folder. It gives no split here, but the names within it are judged by it.
    """

    def __init__(self, folders: Iterable[str], own: str = "") -> None:
        paths = sorted({path for folder in {*folders} for path in _with_parents(folder)})
        self._beside: dict[str, set[tuple[str, Plainness]]] = {}
        for path in paths:
            self._beside.setdefault(_parent(path), set()).add(named_split(_name(path)))
        self._said = {"": _Said("", own, *named_split(own)) if split_of_folder(own) else _Said("")}
        self._classes: list[str] = []
        self._trains: dict[str, str] = {}  # by path: the held-out folder that each lies in
        for path in paths:  # a folder comes before the folders in it
            self._said[path] = self._innermost(path)
        if any(said.path and is_held_out(said.split) for said in self._said.values()):
            # The source itself holds clips out, so its own name, such as ~/dev, says nothing about the folders called
            # train.
            self._trains = {path: outer for path, outer in self._trains.items() if outer}

    def _innermost(self, path: str) -> _Said:
        """Return the folder that counts for clips in ``path``: this one, or the one that counts for the folder
        above."""
        outer, beside = self._said[_parent(path)], self._beside[_parent(path)]
        said = _Said(path, _name(path), *named_split(_name(path)))
        if not said.split:
            return outer
        if outer.split and not _counts(said, outer, beside):
            if said.split != outer.split:
                self._classes.append(path)
            return outer
        if said.split == "train" and is_held_out(outer.split) and not _hold_out(beside, said.plainness):
            self._trains[path] = outer.path
        return said

    def of(self, folder: str) -> tuple[str, str]:
        """Return the name and the split of the folder that counts for clips in ``folder``; two "" if none does."""
        said = self._said[folder]
        return (said.name, said.split) if said.path else ("", "")

    def label(self, folder: str) -> str:
        """Return the name of the innermost folder that gives no split; "" if there is none."""
        while folder and self._said[folder].path == folder:
            folder = _parent(folder)
        return _name(folder)

    def classes(self) -> Notes:
        """Note the folders whose names give another split than the one their clips were given."""
        if not self._classes:
            return Counter()
        text = f"folders named like splits ({first_of(self._classes)}) were taken for classes"
        return Counter({Note("look again", f"{text}: their clips have the split of the folder above"): 1})

    def trains(self, folders: Iterable[str]) -> Notes:
        """Note the folders called train, within a held-out folder, that count for clips in ``folders``."""
        return trains_in_held_out({path for folder in folders if (path := self._said[folder].path) in self._trains})


def trains_in_held_out(paths: Collection[str]) -> Notes:
    """Note folders or files called train in a folder with the name of held-out clips."""
    if not paths:
        return Counter()
    text = f"{first_of(sorted(paths))}: called train, in a folder named like held-out clips"
    return Counter({Note("look again", text, held_out=True): 1})


def splits_of_paths(paths: Sequence[str], own: str) -> tuple[list[str], Notes]:
    """Return the splits of clips by the folders in their paths, or, if no folder gives one, by file names; "" if none.

    Nothing is taken if "train" is the only split found and some paths lack it: it may be a class (trains passing by).

    Args:
        paths: paths of the clips within the source.
        own: name of the source's folder.
    """
    folders = [_parent(path) for path in paths]
    found = FolderSplits(folders, own)
    of_files = [("file names", split_of_clip(_name(path))) for path in paths]
    trains = [path for path, (_, split) in zip(paths, of_files, strict=True) if split == "train"]
    is_all_held_out = is_held_out(split_of_folder(own))
    is_doubtful = is_all_held_out and not any(is_held_out(split) for _, split in of_files)
    stages = (
        ([found.of(folder) for folder in folders], found.trains(folders)),
        (of_files, trains_in_held_out(trains if is_doubtful else ())),
    )
    notes = found.classes()
    for said, doubts in stages:
        splits = {split for _, split in said}
        if splits == {"", "train"}:
            first = next(path for path, (_, split) in zip(paths, said, strict=True) if split)
            text = (
                f"'train' in a part of the paths ({first} …) was not taken for a split: no other path has such a word"
            )
            notes[Note("look again", text)] += 1
            notes += Counter() if is_all_held_out else doubts  # clips in the source's own folder take its split
        elif splits - {""}:
            recognised = names_recognised(Counter(each for each in said if each[1]))
            return [split for _, split in said], notes + doubts + recognised
    return [""] * len(paths), notes


def labels_of_folders(paths: Sequence[str], own: str) -> list[str]:
    """Return the innermost folder in each path that was not taken for a split; "" if there is none.

    As for splits, "train" is a class if it is the only split found and some paths lack it.

    Args:
        paths: paths of the clips within the source.
        own: name of the source's folder.
    """
    folders = [_parent(path) for path in paths]
    found = FolderSplits(folders, own)
    if {found.of(folder)[1] for folder in folders} == {"", "train"}:
        return [_name(folder) for folder in folders]
    return [found.label(folder) for folder in folders]


def _counts(said: _Said, outer: _Said, beside: Collection[tuple[str, Plainness]]) -> bool:
    """Return True if a name is that of a split, judged by the outer folder's split and by the names beside it."""
    splits = {split for split, _ in beside}
    if said.plainness == Plainness.WHOLE:
        return said.split != "train" or "" not in splits or _hold_out(beside, Plainness.WHOLE)
    if said.split == "train" and said.plainness < outer.plainness and is_held_out(outer.split):
        roles = {split.partition("-")[0] for split in splits}
        return "" not in splits and outer.split.partition("-")[0] not in roles
    return "" not in splits


def _hold_out(beside: Iterable[tuple[str, Plainness]], plainness: Plainness) -> bool:
    """Return True if one of the names holds clips out, at least as plainly as ``plainness``."""
    return any(is_held_out(split) and each >= plainness for split, each in beside)


def _with_parents(folder: str) -> Iterator[str]:
    """Yield the path of a folder and of all folders above it, without the source's own."""
    while folder:
        yield folder
        folder = _parent(folder)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _name(path: str) -> str:
    return path.rpartition("/")[2]
