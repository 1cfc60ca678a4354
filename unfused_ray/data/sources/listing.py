"""Lists the clips of a whole source, and gives clips without a split the one that file and folder names give."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

import pyarrow as pa

from unfused_ray import storage
from unfused_ray.config import ColumnsConfig
from unfused_ray.data.parts.executor import Executor
from unfused_ray.data.parts.rejects import Reject
from unfused_ray.data.sources.columns import BY_NAME, FOLDER
from unfused_ray.data.sources.csv_files import has_paths, list_csv
from unfused_ray.data.sources.find import Source, SourceKind, several_kinds
from unfused_ray.data.sources.folders import FolderSplits, labels_of_folders, splits_of_paths, trains_in_held_out
from unfused_ray.data.sources.hub_parquet import list_parquet
from unfused_ray.data.sources.items import ITEMS, Listing, combine
from unfused_ray.data.sources.locate import is_absolute
from unfused_ray.data.sources.notes import Note, Notes, first_of
from unfused_ray.data.sources.sniff import may_hold_out
from unfused_ray.data.sources.splits import (
    is_held_out,
    is_recognised,
    names_recognised,
    resolve_eval,
    split_of_folder,
    split_of_name,
    without_numbers,
)
from unfused_ray.data.sources.tar import list_tar
from unfused_ray.progress import Progress

ARCHIVES: dict[SourceKind, Callable[[str, str, ColumnsConfig, str], Listing]] = {
    "tar": list_tar,
    "parquet": list_parquet,
}
"""Lists the clips of one archive, by kind; the arguments are its URI, its name's split, the columns and the folder."""


def list_source(source: Source, executor: Executor, columns: ColumnsConfig = BY_NAME) -> Listing:
    """List all clips of a source without reading their audio.

    A clip's split comes from the first of these that gives one: its column; the name of its list or archive, or a
    folder of that file within the source; the clip's own path; the source's folder.

    Args:
        source: the source's files.
        executor: lists archives, from which many small parts are read.
        columns: the configured columns.

    Raises:
        ValueError: a CSV or Parquet file lacks a needed column, or does not fit its header.
        OSError: an object store does not answer.
    """
    _refuse_idle_columns(source, columns)
    if source.kind == "audio":
        listing = list_audio(source, has_labels=columns.label == FOLDER)
        return _with_splits(replace(listing, notes=source.notes + listing.notes), source)
    if source.kind == "csv" and len(source.files) > 1:
        source = _with_paths(source, columns)
    named, notes = _splits_of_files(source)
    if source.kind == "csv":
        listing = combine([list_csv(uri, split, columns) for uri, split in zip(source.files, named, strict=True)])
    else:
        arguments = [(uri, split, columns, source.folder) for uri, split in zip(source.files, named, strict=True)]
        listing = combine(_list_archives(source, executor, arguments))
    unlisted = _unlisted(source, listing.items)
    if source.kind == "parquet" and source.beside and len(unlisted) == len(source.beside):
        raise several_kinds(source.folder, {"parquet": source.files, "audio": source.beside})
    for name in sorted({split for split in named if split and not is_recognised(split)}):
        if name in listing.items["split"].to_pylist():
            notes[Note("look again", f"clips of {name} are a split of that name, not train, valid, test or fold")] += 1
    rejects = (*listing.rejects, *Listing.from_rows([], unlisted).rejects)
    return _with_splits(Listing(listing.items, rejects, source.notes + notes + listing.notes), source)


def _refuse_idle_columns(source: Source, columns: ColumnsConfig) -> None:
    """Raise ValueError if a configured column does not apply to files of this kind."""
    if source.kind == "audio" and columns not in (BY_NAME, BY_NAME.replace(label=FOLDER)):
        raise ValueError(
            f"columns={columns!r}: {source.folder} is read as audio files, which have no columns; label={FOLDER} alone "
            "makes labels of the names of their folders"
        )
    has = {"path": "csv", "audio": "parquet"}
    for name, kind in has.items():
        if (value := getattr(columns, name)) and source.kind != kind:
            raise ValueError(f"columns.{name}={value} is of {kind} files, and {source.folder} is read as {source.kind}")


def list_audio(source: Source, has_labels: bool = False) -> Listing:
    """List audio files; a clip's key is its path within the source.

    Args:
        source: the source's files.
        has_labels: label each clip with the innermost folder name within the source that gives no split.

    Raises:
        ValueError: no clip has such a label.
    """
    keys = [storage.relative(uri, source.folder) for uri in source.files]
    labels = labels_of_folders(keys, storage.name(source.folder))
    rows: list[dict[str, Any]] = [{"key": key, "uri": uri} for key, uri in zip(keys, source.files, strict=True)]
    if not has_labels:
        return Listing.from_rows(rows, notes=_folders_left(labels))
    if not any(labels):
        above = storage.parent(source.folder)
        pattern = storage.join(above, f"{storage.name(source.folder)}*")
        remedy = f": name the folder above, or a pattern such as {pattern}" if above != source.folder else ""
        raise ValueError(
            f"columns.label={FOLDER}: within {source.folder} no file lies in a folder, other than those of "
            f"splits{remedy}"
        )
    rows = [row | {"labels": [label] if label else []} for row, label in zip(rows, labels, strict=True)]
    notes = Counter({Note("columns used", "labels ← names of folders", "clips"): sum(map(bool, labels))})
    return Listing.from_rows(rows, notes=notes)


def _with_paths(source: Source, columns: ColumnsConfig) -> Source:
    """Leave out lists without a column of paths, such as a list of the classes, if another list has one."""
    taken = [uri for uri in source.files if has_paths(uri, columns)]
    left = [uri for uri in source.files if uri not in taken]
    if not taken or not left:
        return source
    names = first_of([storage.name(uri) for uri in left])
    notes = Counter({Note("look again", f"lists without a column of paths are not read: {names}"): 1})
    notes.update(Note("not read", storage.name(uri), held_out=True) for uri in left if may_hold_out(uri))
    return replace(source, files=tuple(taken), notes=source.notes + notes)


def _list_archives(
    source: Source, executor: Executor, arguments: Sequence[tuple[str, str, ColumnsConfig, str]]
) -> list[Listing]:
    listings: list[Listing] = [Listing.from_rows([])] * len(arguments)
    with (
        executor.open(),
        Progress("listing", len(arguments), f"{source.kind} files") as bar,
        executor.run(ARCHIVES[source.kind], arguments) as results,
    ):
        for done, (number, listing) in enumerate(results, start=1):
            listings[number] = listing
            bar.update(done)
    return listings


def _splits_of_files(source: Source) -> tuple[list[str], Notes]:
    """Return the split that each list's or archive's name gives; failing that, one of several lists is its own
    split."""
    splits: list[str] = []
    recognised: Counter[tuple[str, str]] = Counter()
    names = [storage.name(uri).rpartition(".")[0] for uri in source.files]
    above = [storage.relative(uri, source.folder).rpartition("/")[0] for uri in source.files]
    folders = FolderSplits(above)
    for name, folder in zip(names, above, strict=True):
        said, split = without_numbers(name), split_of_name(name)
        if not split:
            said, split = folders.of(folder)
        if not split and source.kind == "csv" and len(source.files) > 1:
            split = name
        elif split:
            recognised[said, split] += 1
        splits.append(split)
    unsaid = {folder for name, folder in zip(names, above, strict=True) if not split_of_name(name)}
    notes = folders.classes() + folders.trains(unsaid) + _trains_in_held_out(names, above, folders)
    return splits, notes + names_recognised(recognised, "files")


def _trains_in_held_out(names: Sequence[str], above: Sequence[str], folders: FolderSplits) -> Notes:
    """Note archives called train in a folder with the name of held-out clips, if no archive beside them is held out."""
    held_out = {folder for name, folder in zip(names, above, strict=True) if is_held_out(split_of_name(name))}
    return trains_in_held_out(
        {
            f"{folder}/{name}"
            for name, folder in zip(names, above, strict=True)
            if split_of_name(name) == "train" and is_held_out(folders.of(folder)[1]) and folder not in held_out
        }
    )


def _with_splits(listing: Listing, source: Source) -> Listing:
    """Give clips without a split the one of their paths, else of the source's folder; resolve eval."""
    splits, notes = listing.items["split"].to_pylist(), Counter(listing.notes)
    unsplit = [number for number, split in enumerate(splits) if not split]
    keys = listing.items["key"].to_pylist()
    found, more = splits_of_paths(
        _from_common_folder([keys[number] for number in unsplit]), storage.name(source.folder)
    )
    if own := split_of_folder(storage.name(source.folder)):
        found = [split or own for split in found]
    elif (above := storage.name(storage.parent(source.folder))) and split_of_folder(above) and not all(found):
        text = f"clips in {source.folder} have no split, although the folder above is called {above}"
        more[Note("look again", text)] += 1
    for number, split in zip(unsplit, found, strict=True):
        splits[number] = split
    if count := sum(map(bool, found)):
        notes[Note("columns used", "split ← paths of clips, or the source's folder", "clips")] += count
    splits, of_eval = resolve_eval(splits)
    column = ITEMS.get_field_index("split")
    items = listing.items.set_column(column, ITEMS.field("split"), pa.array(splits, pa.string()))
    return replace(listing, items=items, notes=notes + more + of_eval)


def _from_common_folder(paths: list[str]) -> list[str]:
    """Return the paths relative to the folder above their common one, if absolute; the common folder's name is kept."""
    folders = [path.split("/")[:-1] for path in paths if is_absolute(path)] or [[]]
    in_common = takewhile(lambda pair: pair[0] == pair[1], zip(min(folders), max(folders), strict=False))
    above = "/".join([part for part, _ in in_common][:-1]) + "/"
    return [path.removeprefix(above) if is_absolute(path) else path for path in paths]


def _folders_left(labels: Sequence[str]) -> Notes:
    """Note the folder names of audio files that may be labels."""
    names = sorted({label for label in labels if label})
    if len(names) < 2:
        return Counter()
    text = f"names of folders, which may be labels ({first_of(names)}): --columns.label {FOLDER} takes them"
    return Counter({Note("columns ignored", text): 1})


def _unlisted(source: Source, items: pa.Table) -> list[Reject]:
    """Set aside the audio files in a folder that none of its lists names."""
    listed = {_normal(uri) for uri in items["uri"].to_pylist()} if source.beside else set()
    return [
        Reject(storage.relative(uri, source.folder), "unlisted", f"no {source.kind} file of the source names {uri}")
        for uri in source.beside
        if _normal(uri) not in listed
    ]


def _normal(uri: str) -> str:
    return unicodedata.normalize("NFC", storage.absolute(uri.replace("\\", "/")))
