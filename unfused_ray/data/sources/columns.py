"""Decides which columns of a list, fields of JSON or columns of Parquet describe the clips, and reads their values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unfused_ray.config import ColumnsConfig
from unfused_ray.data.sources import labels as label_columns
from unfused_ray.data.sources.labels import LabelReader, label_name
from unfused_ray.data.sources.notes import Note, Notes, first_of
from unfused_ray.data.sources.splits import (
    EVAL,
    fold,
    is_held_out,
    is_recognised,
    names_recognised,
    split_of_column,
    split_of_value,
)

BY_NAME = ColumnsConfig()
"""The configuration that finds all columns by their names."""
FOLDER = "folder"
"""Value of ``columns.label`` for audio files, which have no columns: their folders' names are the labels."""
PATHS = (
    "files", "wav_path", "file", "filename", "file_name", "fname", "path", "filepath", "file_path", "audio_path",
    "audio_file", "audio_filepath", "audio_filename", "audio", "wav", "recording", "slice_file_name", "ytid",
)  # fmt: skip
"""Names of columns that name audio files, in lower case; the first name that a file has is taken."""
_SPLITS = ("split",)
_MAY_BE_SPLITS = ("partition", "subset", "set", "data_split", "dataset_split", "split_name", "usage")
_LOOKED_INTO = ("mode", "phase", "stage")  # in Parquet, whose other columns are not read
_YES = {"1", "1.0", "true", "t", "yes", "y"}
_NO = {"0", "0.0", "false", "f", "no", "n"}
_NUMBER = re.compile(r"[-+]?\d*\.?\d+(e[-+]?\d+)?")
_UNLIKE_TEST = {"train": _YES, **{role: {"", *_NO} for role in ("valid", "test", EVAL)}}
"""Values of columns such as ``is_train`` or ``is_test`` that do not hold a clip out."""
_PART_OF_FILE = re.compile(
    r"(?!.*date)(?:.*[^a-z])?(?:start|begin|end|stop|onset|offset|tmin|tmax)(?:[^a-z].*|s|time.*|sec.*)?"
)
"""Names of columns that give times within a file: ``start``, ``end_time``, ``Begin Time (s)`` of Raven, ``t_start``."""


@dataclass(frozen=True)
class Columns:
    """The columns that describe clips, by their names in the file; None if a file has no such column."""

    names: Sequence[str]
    label: str | None
    split: str | None
    maybe_splits: Sequence[str]
    """Columns that are splits if all their values are names of splits."""
    fold: str | None
    group: str | None

    @classmethod
    def of(cls, names: Sequence[str], wanted: ColumnsConfig, uri: str) -> Columns:
        """Choose among the columns of the file at ``uri``: the configured ones, else by their names in any case.

        Raises:
            ValueError: a configured column is not there.
        """
        asked_for = {
            field: chosen_column(names, getattr(wanted, field), field, uri) for field in ("label", "split", "group")
        }
        return cls(
            names=names,
            label=asked_for["label"] or label_name(names),
            split=asked_for["split"] or first_column(names, _SPLITS),
            maybe_splits=[name for name in names if name.casefold() in _MAY_BE_SPLITS],
            fold=first_column(names, ("fold",)),
            group=asked_for["group"] or first_column(names, ("group",)),
        )

    @property
    def read(self) -> list[str]:
        """Names of the columns whose values are needed."""
        return list(dict.fromkeys(name for name in (self.label, *self.may_hold_splits, self.group) if name))

    @property
    def may_hold_splits(self) -> list[str]:
        """Names of the columns that give splits, or look as if they do."""
        doubtful = [name for name in self.names if split_of_column(name) or name.casefold() in _LOOKED_INTO]
        return [name for name in (self.split, *self.maybe_splits, self.fold, *doubtful) if name]


def chosen_column(names: Sequence[str], wanted: str, field: str, uri: str) -> str | None:
    """Return the configured column, in any case; None if none is configured.

    Raises:
        ValueError: the column is not there.
    """
    if not wanted:
        return None
    if found := first_column(names, (wanted, wanted.casefold())):
        return found
    has = f"has the columns {', '.join(names)}. Name one of these" if names else "has no columns. Leave it out"
    if field == "label" and wanted == FOLDER:
        has += f"; {FOLDER} is for audio files without a list, whose labels are the names of their folders"
    raise ValueError(f"columns.{field}={wanted}: {uri} {has}")


def first_column(names: Sequence[str], known: Sequence[str]) -> str | None:
    """Return the first of the ``known`` names that is there, in this spelling or in any case."""
    by_name = {name.casefold(): name for name in reversed(names)} | {name: name for name in names}
    return next((by_name[name] for name in known if name in by_name), None)


def describe(
    records: Sequence[Mapping[str, Any]],
    columns: Columns,
    other: Sequence[str | None],
    split: str,
    class_names: Sequence[str] | None = None,
) -> tuple[list[dict[str, Any]], Notes]:
    """Return labels, split and group of each record, and notes on the columns.

    Args:
        records: values by column.
        columns: the columns that describe the clips.
        other: other columns that are used, such as the path.
        split: split of clips whose columns give none, from the name of their file; "" if that gives none either.
        class_names: names of the classes, if the labels are class numbers.
    """
    split_column = _split_column(records, columns, is_named=bool(split))
    read_split = (lambda text: fold(text) or split_of_value(text)) if split_column == columns.fold else split_of_value
    label_reader = LabelReader(columns.label or "", class_names)
    label_reader.look_at(record.get(columns.label or "") for record in records)
    named: Counter[tuple[str, str]] = Counter()
    rows = []
    for record in records:
        said = _text(record.get(split_column or ""))
        if said:
            named[said, read_split(said)] += 1
        labels = label_reader.read(record.get(columns.label)) if columns.label else []
        own_split = read_split(said) if said else split
        rows.append({"labels": labels, "split": own_split, "group": _text(record.get(columns.group or ""))})
    used = {"label": columns.label, "split": split_column, "group": columns.group}
    left = [name for name in columns.names if name not in {*used.values(), *other}]
    notes = Counter({Note("columns used", f"{field} ← {name}", "files"): 1 for field, name in used.items() if name})
    notes.update({Note("columns ignored", name, "files"): 1 for name in left})
    is_partial = sum(named.values()) < len(records)
    if split and is_partial:
        notes[Note("columns used", "split ← names of files and folders", "files")] += 1
    notes.update(_columns_left(records, columns, left, may_hold_out=is_partial and not is_held_out(split)))
    notes.update(_doubts(left, split_column, named, split))
    return rows, notes + names_recognised(named) + label_reader.notes


def _split_column(records: Sequence[Mapping[str, Any]], columns: Columns, is_named: bool) -> str | None:
    """Return the column that gives the splits.

    That is the column called split if it has values; else a column that may be one if all its values are names of
    splits; else the folds, if no file's name gives a split.
    """
    if columns.split and next(_texts(records, columns.split), ""):
        return columns.split
    for name in columns.maybe_splits:
        if (values := _values(records, name)) and all(is_recognised(split_of_value(value)) for value in values):
            return name
    folds = _values(records, columns.fold) if columns.fold and not is_named else set()
    return columns.fold if folds and all(fold(value) for value in folds) else columns.split


def _columns_left(
    records: Sequence[Mapping[str, Any]], columns: Columns, left: Sequence[str], may_hold_out: bool
) -> Notes:
    """Return sentences on columns that were left although they look as if they mattered.

    Args:
        records: values by column.
        columns: the columns that describe the clips.
        left: the columns that were not taken.
        may_hold_out: some clips have a split from no other place, so a column that was left may be the only one that
            holds them out.
    """
    doubts: Notes = Counter()
    for name in left:
        if name in columns.maybe_splits or name == columns.fold:
            values = _values(records, name)
            held_out = any(is_held_out(value) and not fold(value) for value in values)
            text = f"({first_of(sorted(values))}) looks like a split and was not taken: --columns.split {name} takes it"
        elif role := split_of_column(name):
            marks = {_text(record.get(name)).casefold() for record in records}
            is_measure = any(_NUMBER.fullmatch(mark) for mark in marks - _YES - _NO)  # "val" may be a value
            held_out = bool(marks - _UNLIKE_TEST[role]) and not is_measure
            text = "looks like a split and was not taken: write a column split"
        elif _holds_out(records, name):
            held_out = True
            text = f"holds names of splits and was not taken: --columns.split {name} takes it"
        elif label_columns.looks_like_labels(name):
            held_out = False
            text = f"looks like labels and was not taken: --columns.label {name} takes it"
        else:
            continue
        doubts[Note("look again", f"column {name} {text}", held_out=held_out and may_hold_out)] += 1
    if len(classes := _marks_of_classes(records, columns, left)) > 1:
        doubts[
            Note(
                "look again",
                f"columns {first_of(classes)} hold 0 and 1, as if each were a class, and were not taken: clips have no "
                f"labels. Write a column labels with the names of those that are 1, such as {classes[0]};{classes[1]}",
            )
        ] += 1
    return doubts


def _marks_of_classes(records: Sequence[Mapping[str, Any]], columns: Columns, left: Sequence[str]) -> list[str]:
    """Return the columns that hold a yes or no per clip and give no split; none if another column holds the labels."""
    found: dict[str, set[str]] = {}
    for name in left if columns.label is None else ():
        marks = {text.casefold() for text in _texts(records, name)}
        if marks and marks <= _YES | _NO and name not in columns.may_hold_splits:
            found[name] = marks
    seen = {mark for marks in found.values() for mark in marks}
    return list(found) if seen & _YES and seen & _NO else []


def _holds_out(records: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Return True if all values of a column are names of splits, and one of them holds clips out."""
    splits: set[str] = set()
    for text in _texts(records, name):
        split = split_of_value(text)
        if not is_recognised(split) or fold(split):
            return False
        splits.add(split)
    return any(map(is_held_out, splits))


def _doubts(left: Sequence[str], split_column: str | None, named: Counter[tuple[str, str]], split: str) -> Notes:
    """Return sentences on parts of files, names that are no known split, and files whose names give another split."""
    doubts: Notes = Counter()

    def doubt(text: str) -> None:
        doubts[Note("look again", text)] += 1

    if parts := [name for name in left if _PART_OF_FILE.fullmatch(name.casefold())]:
        doubt(f"column {', '.join(parts)} may name a part of each file; whole files are read")
    if unknown := sorted({split for _, split in named if not is_recognised(split)}):
        text = f"{first_of(unknown)} in column {split_column}: neither train, valid, test nor a fold"
        doubt(f"{text}. Only --splits {unknown[0]} … reads such clips")
    others = sorted({said for (said, own) in named if split and is_held_out(split) and own == "train"})
    if others and split_column:
        doubt(f"column {split_column} says {first_of(others)} for clips in a file called {split}: the column is used")
    return doubts


def _values(records: Sequence[Mapping[str, Any]], name: str) -> set[str]:
    return set(_texts(records, name))


def _texts(records: Sequence[Mapping[str, Any]], name: str) -> Iterator[str]:
    return (text for record in records if (text := _text(record.get(name))))


def _text(value: Any) -> str:
    """Return a cell as text; "" if it holds nothing."""
    return "" if value is None or value != value else str(value).strip()
