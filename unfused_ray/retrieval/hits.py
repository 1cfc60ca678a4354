"""Hits of a search as a table, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from unfused_ray.retrieval.catalogue import Clip
from unfused_ray.retrieval.marks import Mark


@dataclass(frozen=True)
class Hit:
    """A clip that was found."""

    rank: int
    """Rank of the hit, from 1."""
    similarity: float
    """Cosine in the space of the index; after learning from marks, the probability that the clip should be kept."""
    clip: Clip


@dataclass(frozen=True)
class Found:
    """Hits of a search, with its query."""

    index: str
    """Path or URI of the index."""
    question: str
    """The query in words."""
    measure: str
    """Name of the hits' number: similarity or probability."""
    hits: tuple[Hit, ...]
    unsure: tuple[Hit, ...] = ()
    """Clips about which a classifier of marks is least sure."""
    marks: tuple[Mark, ...] = ()
    """Marks that the search has learnt from."""
    pcm: np.ndarray | None = field(default=None, compare=False)
    """Samples of the query, if it is a wave."""
    sample_rate: int = 0
    clip: Clip | None = None
    """The query, if it is a clip of the index."""

    def to_terminal(self) -> Table:
        """Return all hits as a table."""
        title = f"{self.index}: {self.question}"
        caption = "" if self.hits else "Nothing but the question itself passes the filters."
        if self.unsure:
            caption = "? – the least sure: marking these teaches the most."
        table = Table(title=Text(title), title_justify="left", caption=caption or None, caption_justify="left")
        for heading in ("rank", self.measure, "source", "key", "seconds", "labels", "split"):
            table.add_column(heading, justify="right" if heading in ("rank", self.measure) else "left", overflow="fold")
        for section, hits in self._sections():
            for hit in hits:
                clip = hit.clip
                seconds = f"{clip.start_seconds:.2f} – {clip.end_seconds:.2f}"
                cells = f"{hit.similarity:.3f}", clip.source, clip.key, seconds, ", ".join(clip.labels), clip.split
                table.add_row(f"{hit.rank}{section}", *map(Text, cells))
        return table

    def to_csv(self) -> str:
        """Return all hits as CSV, with an empty column for marks."""
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, self._columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "labels": ";".join(row["labels"])} for row in self._rows())
        return buffer.getvalue()

    def to_json(self) -> str:
        """Return query and hits as JSON."""
        content = {"index": self.index, "question": self.question, "measure": self.measure, "hits": list(self._rows())}
        return json.dumps(content, indent=1, ensure_ascii=False)

    def _sections(self) -> Iterator[tuple[str, Sequence[Hit]]]:
        yield "", self.hits
        if self.unsure:
            yield "?", self.unsure

    @property
    def _columns(self) -> list[str]:
        clip = ("source", "key", "start_seconds", "end_seconds", "labels", "split", "group", "uri", "recording_seconds")
        return ["rank", "is_unsure", self.measure, *clip, "mark"]

    def _rows(self) -> Iterator[dict[str, Any]]:
        for section, hits in self._sections():
            for hit in hits:
                clip = hit.clip
                values = [
                    *(hit.rank, section == "?", round(hit.similarity, 6), clip.source, clip.key),
                    *(clip.start_seconds, clip.end_seconds, list(clip.labels), clip.split, clip.group),
                    *(clip.place["uri"], clip.recording_seconds, ""),
                ]
                yield dict(zip(self._columns, values, strict=True))
