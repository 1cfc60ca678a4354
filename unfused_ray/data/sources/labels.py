"""Reads labels in the forms that lists and archives use: one name, several in a cell, nested, or class numbers."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from unfused_ray.data.sources.notes import Kind, Note, Notes

NAMES = (
    "human_labels",
    "labels",
    "label",
    "category",
    "class",
    "categories",
    "classes",
    "tags",
    "tag",
    "mids",
    "positive_labels",
    "target",
    "targets",
    "label_name",
    "class_name",
    "classname",
    "cls",
    ".cls",
    ".txt",
)
"""Names of columns and fields that hold labels, in lower case; the first name that is there is taken. The last two are
companion files in a tar."""

_PLURAL = {"human_labels", "labels", "categories", "classes", "tags", "mids", "targets", "positive_labels"}
_LOOKS_LIKE_LABELS = re.compile(
    r"label|class|categor|tag|target|species|genre|emotion|event|instrument|keyword|mids?$|^\.?cls$"
)
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"")
_SEVERAL = re.compile(r"\s*[;|]\s*")
_COMMAS = re.compile(r"\s*,\s*")
_COMMAS_WITHOUT_BLANK = re.compile(r",(?=\S)")
_NUMBERS = re.compile(r"[-+.\d]+(?:\s+[-+.\d]+)*")
_ONES = {"1", "1.0", "1.", "True"}
_ZEROS = {"0", "0.0", "0.", "False"}
_NOTHING = {"nan", "NaN", "NAN", "None", "N/A", "n/a", "#N/A", "NULL", "null", "<NA>", "-"}
"""Cells that stand for no value, as pandas, databases and people write them."""


def label_name(names: Iterable[str]) -> str | None:
    """Return the name of the column or field that holds the labels, in any case; None if there is none."""
    known = {name.casefold(): name for name in reversed(list(names))}
    return next((known[name] for name in NAMES if name in known), None)


def looks_like_labels(name: str) -> bool:
    """Return True if a column's name suggests that it holds labels."""
    return _LOOKS_LIKE_LABELS.search(name.casefold()) is not None


class LabelReader:
    """Reads the labels of a column, and notes every cell that is not a plain name.

    Args:
        column: name of the column or field. If it is in the plural, commas separate labels; if in the singular, only
            commas without a blank after them do ("Speech, male" is one label). Semicolons and ``|`` separate labels in
            both; in a cell that has one of these, commas do not.
        class_names: names of the classes, if the column holds class numbers.
    """

    def __init__(self, column: str, class_names: Sequence[str] | None = None) -> None:
        self._column = column
        self._is_plural = column.casefold() in _PLURAL
        self._class_names = class_names
        self._has_separators = False
        self.notes: Notes = Counter()

    def look_at(self, values: Iterable[Any]) -> None:
        """Learn from all values of the column how it separates labels, before they are read."""
        self._has_separators = any(isinstance(value, str) and _SEVERAL.search(value) for value in values)

    def read(self, value: Any) -> list[str]:
        """Return a value of the column as labels; none if it is empty, NaN, or -1, the hub's number for no class."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return []
        if isinstance(value, str):
            return self._of_text(value.strip())
        if isinstance(value, Mapping):
            return self._of_fields(value)
        if isinstance(value, list | tuple):
            return self._of_items(value)
        if self._class_names and isinstance(value, int) and not isinstance(value, bool):
            return self._of_number(value)
        return [str(value)]

    def _of_text(self, text: str) -> list[str]:
        if text in _NOTHING:
            self._note(f"cells of {{}} say {text!r}, which is no label", "look again")
            return []
        if (fields := _fields_of_text(text)) is not None:
            return self._of_fields(fields)
        if (items := _items_of_list(text)) is not None:
            parts = self._of_items(items)
        else:
            parts = [part.strip() for part in self._parts(text) if part.strip()]
        if len(parts) > 1:
            self._note("cells of {} are several labels")
        return parts

    def _parts(self, text: str) -> list[str]:
        if len(parts := _SEVERAL.split(text)) > 1:
            return parts
        if (self._is_plural and not self._has_separators) or not re.search(r",(\s|$)", text):
            return _COMMAS.split(text)
        self._note("cells of {} with a comma and a blank are one label")
        return _COMMAS_WITHOUT_BLANK.split(text) if self._is_plural else [text]

    def _of_items(self, items: Sequence[Any]) -> list[str]:
        """Read a list of labels, of class numbers, or of one 0 or 1 for each class."""
        if not _is_multi_hot(items) or len(items) != len(self._class_names or items):
            return [label for each in items for label in ([each] if _is_name(each) else self.read(each))]
        if self._class_names is None:
            self._note("lists of {} hold 0 and 1: their places are the labels, counted from 0", "look again")
        names = self._class_names or range(len(items))
        return [str(name) for name, item in zip(names, items, strict=True) if str(item) in _ONES]

    def _of_fields(self, fields: Mapping[str, Any]) -> list[str]:
        if (name := label_name(fields)) is not None and not isinstance(fields[name], bool):
            return self.read(fields[name])
        if fields and all(isinstance(value, bool | int | float) and value in (0, 1) for value in fields.values()):
            return [name for name, value in fields.items() if value]
        if name is None:
            self._note(f"structs of {{}} with the fields {', '.join(fields)} were not taken for labels", "look again")
            return []
        return self.read(fields[name])

    def _of_number(self, number: int) -> list[str]:
        assert self._class_names is not None
        if 0 <= number < len(self._class_names):
            return [self._class_names[number]]
        if number == -1:
            self._note("cells of {} are -1, the hub's number for no label")
            return []
        self._note(f"numbers of {{}} are beyond its {len(self._class_names)} class names, and kept", "look again")
        return [str(number)]

    def _note(self, text: str, kind: Kind = "columns used") -> None:
        self.notes[Note(kind, text.replace("{}", f"column {self._column}"), "clips")] += 1


def _is_multi_hot(items: Sequence[Any]) -> bool:
    """Return True for a list with a 0 or 1 for each class; two whole numbers may instead be class numbers."""
    if len(items) < 2 or not isinstance(items[0], str | int | float):
        return False
    marks = {str(item) for item in items}
    return marks <= _ONES | _ZEROS and (len(items) > 2 or not marks <= {"0", "1"})


def _fields_of_text(text: str) -> dict[str, Any] | None:
    """Return the fields of a dict written out in JSON or Python syntax; None if the text is not one."""
    for written in (text, text.replace("'", '"')) if text[:1] == "{" else ():
        try:
            if isinstance(fields := json.loads(written), dict):
                return fields
        except (ValueError, RecursionError):
            continue
    return None


def _is_name(value: Any) -> bool:
    """Return True for an item of a list that is a label as it stands."""
    return isinstance(value, str) and value != ""


def _items_of_list(text: str) -> list[str] | None:
    """Return the items of a list that is written out, such as ``['a', 'b']`` of Python or NumPy; None for other
    text."""
    if len(text) < 2 or text[0] + text[-1] not in ("[]", "()", "{}") or (text[0] == "{" and ":" in text):
        return None
    try:
        if isinstance(items := json.loads(text), list):
            return [str(item) for item in items if item is not None]
    except ValueError:
        pass
    inner = text[1:-1].strip()
    if inner[:1] in ("'", '"'):
        return ["".join(found) for found in _QUOTED.findall(inner)]
    if "," in inner and text[0] == "[":
        return _COMMAS.split(inner)
    if text[0] == "[" and _NUMBERS.fullmatch(inner):
        return inner.split()
    return [] if not inner else None
