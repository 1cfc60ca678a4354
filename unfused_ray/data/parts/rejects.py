"""Clips that were set aside, and clips that were kept with a warning, each with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from unfused_ray import storage

REJECTS = "rejects.parquet"
WARNINGS = "warnings.parquet"


class Reject(NamedTuple):
    """A clip that was set aside."""

    key: str
    reason: str
    """One of a few words to count by: an ``audio.errors.Reason``, or "duplicate" or "unlisted" if a listing set the
    clip aside."""
    detail: str


class Warned(NamedTuple):
    """A clip that was kept although something is wrong with it."""

    key: str
    reason: str
    """One of a few words to count by (``audio.errors.WarningReason``)."""
    detail: str


def write_rejects(uri: str, rejects: Sequence[Reject | Warned]) -> None:
    """Write rejects or warnings as Parquet with the columns key, reason and detail."""
    table = pa.table(
        {name: pa.array([getattr(reject, name) for reject in rejects], pa.string()) for name in Reject._fields}
    )
    with storage.open_output(uri) as output:
        pq.write_table(table, output)


def count_reasons(rejects: Sequence[Reject | Warned]) -> dict[str, int]:
    """Count rejects or warnings by reason, in alphabetical order."""
    return dict(sorted(Counter(reject.reason for reject in rejects).items()))


def told_reasons(rejects: Mapping[str, int], warnings: Mapping[str, int]) -> dict[str, int | str]:
    """Return the rows of a summary: the clips of each reason, and the files in the output that name them."""
    rows: dict[str, int | str] = {f"set aside: {reason}": count for reason, count in rejects.items()}
    rows |= {f"kept, but {reason}": count for reason, count in warnings.items()}
    files = [name for name, counts in ((REJECTS, rejects), (WARNINGS, warnings)) if counts]
    return rows | ({"each of these clips": ", ".join(files)} if files else {})


def in_words(rejects: Sequence[Reject]) -> str:
    """Return the counts of all reasons for a message, such as `` (3 silent, 1 empty)``; '' without rejects."""
    counts = Counter(reject.reason for reject in rejects)
    return f" ({', '.join(f'{count} {reason}' for reason, count in counts.most_common())})" if counts else ""
