"""Listings of clips: one row per clip, with the place of its bytes. Making one reads no audio."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unfused_ray.data.parts.rejects import Reject
from unfused_ray.data.sources.notes import Note, Notes

logger = logging.getLogger(__name__)

ITEMS = pa.schema(
    [
        pa.field("key", pa.string()),  # the source's own name of the clip
        pa.field("uri", pa.string()),  # the file that holds it
        pa.field("offset", pa.int64()),  # in a tar: its first byte,
        pa.field("num_bytes", pa.int64()),  # and its length
        pa.field("row_group", pa.int64()),  # in a Parquet file: its row group,
        pa.field("row", pa.int64()),  # the row within,
        pa.field("column", pa.string()),  # and the column of audio
        pa.field("start", pa.float64()),  # start of a clip that is a part of its audio, in seconds,
        pa.field("seconds", pa.float64()),  # and its length
        pa.field("labels", pa.list_(pa.string())),
        pa.field("split", pa.string()),
        pa.field("group", pa.string()),
    ]
)
_PLACE = ("key", "uri", "offset", "row_group", "row", "column", "start", "seconds")
"""Columns that identify the audio of a clip."""
_SHOWN = 3


@dataclass(frozen=True)
class Listing:
    """The clips of a source, or of a part of it, at about 150 bytes each; the rejects; and notes for the summary."""

    items: pa.Table
    rejects: tuple[Reject, ...] = ()
    notes: Notes = field(default_factory=Counter)

    @classmethod
    def from_rows(
        cls, rows: Sequence[dict[str, Any]], rejects: Sequence[Reject] = (), notes: Notes | None = None
    ) -> Listing:
        """Make a listing from rows of ``ITEMS``; a missing column is null, or empty for labels, split and group.

        A row whose strings UTF-8 cannot hold, such as a file name in another encoding, is set aside.
        """
        defaults = {"labels": [], "split": "", "group": ""}
        good = [defaults | row for row in rows]
        found = list(rejects)
        try:
            items = pa.Table.from_pylist(good, ITEMS)
        except UnicodeEncodeError:
            bad = [row for row in good if not _is_utf8(row)]
            found += [Reject(row["key"], "unreadable", "its name, labels, split or group are not UTF-8") for row in bad]
            items = pa.Table.from_pylist([row for row in good if _is_utf8(row)], ITEMS)
        return cls(items, tuple(Reject(*map(_printable, reject)) for reject in found), notes or Counter())


def _is_utf8(row: dict[str, Any]) -> bool:
    strings = [row["key"], row["uri"], row["split"], row["group"], *row["labels"]]
    return all(_printable(string) == string for string in strings)


def _printable(text: str) -> str:
    """Escape the characters that UTF-8 cannot hold, as in ``\\udcff``."""
    return text.encode("utf-8", "backslashreplace").decode()


def draw(seed: int, name: str) -> float:
    """Draw a number in [0, 1) from ``seed`` and ``name`` alone: the same in every process and listing."""
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def combine(listings: Sequence[Listing]) -> Listing:
    """Concatenate listings. A repeated key becomes ``key#2``, ``key#3`` …; a note and the log give their number.

    If clips with one key and the same audio have different labels, they are named.
    """
    items = pa.concat_tables([listing.items for listing in listings]) if listings else ITEMS.empty_table()
    notes: Notes = Counter()
    for listing in listings:
        notes.update(listing.notes)
    listed = items["key"].to_pylist()
    own, seen = set(listed), dict[str, int]()
    keys: list[str] = []
    for key in listed:
        seen[key] = seen.get(key, 0) + 1
        while seen[key] > 1 and f"{key}#{seen[key]}" in own:  # the source's own name of another clip
            seen[key] += 1
        keys.append(key if seen[key] == 1 else f"{key}#{seen[key]}")
    if len(seen) < len(keys):
        count = len(keys) - len(seen)
        has = "1 clip has" if count == 1 else f"{count:,} clips have"
        text = f"{has} the key of another, such as one file in several rows: kept as key#2, key#3 …"
        for sentence in (text, *_labelled_twice(items, {key for key, times in seen.items() if times > 1})):
            logger.warning(sentence)
            notes[Note("look again", sentence)] += 1
    items = items.set_column(0, ITEMS.field("key"), pa.array(keys, pa.string()))
    return Listing(items, tuple(reject for listing in listings for reject in listing.rejects), notes)


def _labelled_twice(items: pa.Table, repeated: Set[str]) -> list[str]:
    """Return a sentence on files that are in several rows with different labels; none if there are no such files."""
    rows = np.flatnonzero(pc.is_in(items["key"], pa.array(sorted(repeated), pa.string())).to_numpy())
    labels: dict[tuple[Any, ...], list[list[str]]] = {}
    for row in items.take(rows).to_pylist():
        of_place = labels.setdefault(tuple(row[name] for name in _PLACE), [])
        if sorted(row["labels"]) not in of_place:
            of_place.append(sorted(row["labels"]))
    found = {place[0]: each for place, each in labels.items() if len(each) > 1}
    if not found:
        return []
    key, several = next(iter(found.items()))
    has = "1 file is" if len(found) == 1 else f"{len(found):,} files are"
    of_rows = " and ".join(", ".join(each) or "none" for each in several[:_SHOWN])
    together = ";".join(dict.fromkeys(label for each in several[:_SHOWN] for label in each))
    return [
        f"{has} in several rows with different labels, such as {key} ({of_rows}): each row is a clip of its own, so "
        f"equal audio has several answers. Write one row a file, with all of its labels, such as {together}"
    ]


def select(items: pa.Table, fraction: float, seed: int) -> pa.Table:
    """Take a share of the clips and put them in the order in which they are read.

    Whether a clip is taken depends only on its key and the seed, so a smaller share is part of a larger one. The clips
    of a split are adjacent, in random order. Within a split the clips of a Parquet row group stay together, because
    reading one of them costs as much as reading all.
    """
    draws = np.array([draw(seed, key) for key in items["key"].to_pylist()], np.float64)
    parts, places = draws, np.zeros(len(items), np.int64)
    if items["row_group"].null_count < len(items):
        names = list(zip(items["uri"].to_pylist(), items["row_group"].to_pylist(), strict=True))
        parts = np.array([draw(seed, f"{uri.rpartition('/')[2]}:{row_group}") for uri, row_group in names], np.float64)
        numbers = {name: number for number, name in enumerate(sorted({*names}, key=str))}
        places = np.array([numbers[name] for name in names], np.int64)  # files of one name, in folders, draw the same
    _, splits = np.unique(np.array(items["split"].to_pylist(), object), return_inverse=True)
    order = np.lexsort((draws, places, parts, splits))
    return items.take(order[draws[order] < fraction])
