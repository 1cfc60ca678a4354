"""Clips that were set aside, each with its reason."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from unfused_ray import storage


class Reject(NamedTuple):
    """A clip that was set aside."""

    key: str
    reason: str
    """One of a few words to count by (``audio.decode.Reason``)."""
    detail: str


def write_rejects(uri: str, rejects: Sequence[Reject]) -> None:
    """Write clips that were set aside as Parquet: their key, the reason and what was found."""
    table = pa.table(
        {name: pa.array([getattr(reject, name) for reject in rejects], pa.string()) for name in Reject._fields}
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    storage.write_bytes(uri, buffer.getvalue())


def count_reasons(rejects: Sequence[Reject]) -> dict[str, int]:
    """How many clips were set aside for each reason, in the order of the alphabet."""
    return dict(sorted(Counter(reject.reason for reject in rejects).items()))
