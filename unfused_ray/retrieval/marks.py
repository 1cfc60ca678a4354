"""Marks of clips that a person keeps or rejects, in a CSV file."""

from __future__ import annotations

import csv
import io
import logging
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unfused_ray import storage
from unfused_ray.retrieval.catalogue import SAME_SECONDS
from unfused_ray.retrieval.collection import Collection

logger = logging.getLogger(__name__)

COLUMNS = ("source", "key", "start_seconds", "end_seconds", "mark")
"""Columns of a file of marks; other columns are ignored."""
KEEP, REJECT = "keep", "reject"
_SEPARATORS = (",", ";", "\t")
_SHOWN = 3


@dataclass(frozen=True)
class Mark:
    """A clip of an index that a person keeps or rejects."""

    source: str
    key: str
    start_seconds: float
    end_seconds: float
    mark: str
    """``keep`` or ``reject``."""


def read_marks(uri: str) -> list[Mark]:
    """Read a file of marks. The last mark of a clip counts; rows without a mark are left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not CSV in UTF-8, columns are missing, or a row cannot be read; names the line.
    """
    try:
        return _read(uri)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{uri} is no CSV in UTF-8 ({error}): save it as UTF-8") from error


def _read(uri: str) -> list[Mark]:
    text = storage.read_bytes(uri).decode("utf-8-sig")
    separator = next((each for each in _SEPARATORS if set(COLUMNS) <= set(_cells(text, each))), ",")
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)  # lines may end as on any system
    if missing := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
        raise ValueError(f"{uri} lacks the columns {', '.join(missing)} of marks: save them from a page of search")
    found: dict[tuple[str, str, float], Mark] = {}
    for row in rows:
        mark = (row["mark"] or "").strip()
        if not mark:
            continue
        if mark not in (KEEP, REJECT):
            raise ValueError(f"line {rows.line_num} of {uri}: mark={mark} is neither {KEEP} nor {REJECT}")
        try:
            start, end = (_seconds(row[name], separator) for name in ("start_seconds", "end_seconds"))
            marked = Mark(row["source"], row["key"], start, end, mark)
        except (AttributeError, ValueError) as error:
            raise ValueError(f"line {rows.line_num} of {uri} has no seconds ({error}): save the marks again") from error
        found[marked.source, marked.key, marked.start_seconds] = marked
    return list(found.values())


def _cells(text: str, separator: str) -> list[str]:
    return next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])


def _seconds(cell: str, separator: str) -> float:
    # Where numbers have a decimal comma, spreadsheets separate cells by something else.
    return float(cell if separator == "," else cell.replace(",", "."))


def ids_of(collection: Collection, marks: Sequence[Mark]) -> dict[int, bool]:
    """Return the ids of marked vectors, True for those to keep; warn of marks of clips that the index lacks."""
    clips, sources = collection.clips, collection.manifest.sources
    keys = pc.is_in(clips.column("key"), pa.array([mark.key for mark in marks], pa.string()))
    ids = np.flatnonzero(keys.combine_chunks().to_numpy(zero_copy_only=False))
    known: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for clip in clips.clips(ids.tolist()):
        known.setdefault((clip.source, clip.key), []).append((clip.start_seconds, clip.id))
    known = {name: sorted(windows) for name, windows in known.items()}
    found, unknown = {}, []
    for mark in marks:
        windows = known.get((mark.source, mark.key), [])
        place = bisect_left(windows, (mark.start_seconds, 0))
        near = [(abs(start - mark.start_seconds), id_) for start, id_ in windows[max(0, place - 1) : place + 1]]
        if near and min(near)[0] < SAME_SECONDS:  # spreadsheets round the numbers that they save
            found[min(near)[1]] = mark.mark == KEEP
        else:
            unknown.append(f"{mark.key} of {mark.source}")
    if unknown:
        names = ", ".join(source.name for source in sources)
        shown = ", ".join(unknown[:_SHOWN])
        logger.warning("%d marks name clips that the index of %s lacks: %s", len(unknown), names, shown)
    return found
