"""Notes on a listing, for the summary of a source: columns, names and files that were taken, and those that were
left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal, NamedTuple, get_args

Kind = Literal["columns used", "columns ignored", "names recognised", "skipped on purpose", "not read", "look again"]
"""Kinds of notes, in the order of the summary. A "look again" note is a sentence on something that may be a mistake."""

_SHOWN = 20


class Note(NamedTuple):
    """One thing that was taken or left. Equal notes on several files are counted."""

    kind: Kind
    text: str
    unit: str = ""
    """The thing counted, in the plural; "" if there is nothing to count."""
    held_out: bool = False
    """True if the note may name clips that are held out for validation or test."""


Notes = Counter[Note]
"""Counts of equal notes; the notes of two listings add up."""


def by_kind(notes: Notes) -> dict[str, str]:
    """Describe the notes of each kind in words, one row of a summary each; "look again" is left to
    :func:`sentences`."""
    rows = {kind: _words(notes, kind) for kind in get_args(Kind) if kind != "look again"}
    return {kind: ", ".join(_shortened(words)) for kind, words in rows.items() if words}


def sentences(notes: Notes) -> list[str]:
    """Return the sentences on things that may not be as the source's author meant them."""
    return _shortened(_words(notes, "look again"))


def first_of(names: Iterable[str], shown: int = 3) -> str:
    """Name the first few, and count the others."""
    known = list(names)
    more = f" and {len(known) - shown:,} more" if len(known) > shown else ""
    return ", ".join(known[:shown]) + more


def _words(notes: Notes, kind: Kind) -> list[str]:
    return [note.text + _counted(note, count) for note, count in notes.items() if note.kind == kind]


def _counted(note: Note, count: int) -> str:
    of_one_file = count == 1 and note.unit == "files" and note.kind in ("columns used", "columns ignored")
    unit = note.unit.removesuffix("s") if count == 1 else note.unit
    return f" ({count:,} {unit})" if unit and not of_one_file else ""


def _shortened(words: list[str]) -> list[str]:
    return [*words[:_SHOWN], *([f"{len(words) - _SHOWN:,} more"] if len(words) > _SHOWN else [])]
