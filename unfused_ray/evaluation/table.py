"""The table of an evaluation as JSON, Markdown, picture and in the terminal."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from unfused_ray import storage
from unfused_ray.evaluation.bootstrap import Interval
from unfused_ray.evaluation.cells import Cell
from unfused_ray.evaluation.protocol import Protocol
from unfused_ray.evaluation.rows import Choice, Row, headings, num_test_groups, score
from unfused_ray.evaluation.systems import System
from unfused_ray.evaluation.tasks import Task
from unfused_ray.figures.evaluation_figures import draw_table
from unfused_ray.figures.run_pictures import save

FILES = ("table.md", "table.json", "table.png")
"""What a table is written as."""
_NOT_CORRECTED = "not corrected for the number of comparisons"


@dataclass(frozen=True)
class Table:
    """What an evaluation found."""

    tasks: tuple[str, ...]
    num_groups: dict[str, int]
    """Groups of test clips, by task."""
    rows: tuple[Row, ...]
    reference: str
    protocol_sha256: str
    unconverged: tuple[str, ...]
    """Cells whose chosen fit ended before it converged, as "row on task"."""
    damaged: tuple[str, ...]
    """Cells in which clips were damaged, as "row on task (clips)"."""
    num_folds: dict[str, int] = field(default_factory=dict)
    """Of the tasks that have folds."""

    @classmethod
    def of(
        cls,
        protocol: Protocol,
        tasks: Sequence[Task],
        systems: Sequence[System],
        cells: Mapping[tuple[str, str], Cell],
        reference: str,
    ) -> Table:
        """Score all cells, by (row, task)."""
        return cls(
            tasks=tuple(task.name for task in tasks),
            num_groups={task.name: num_test_groups(task) for task in tasks},
            rows=score(protocol.config.bootstrap, tasks, systems, cells, reference),
            reference=reference,
            protocol_sha256=protocol.sha256,
            unconverged=tuple(f"{row} on {task}" for (row, task), cell in cells.items() if not cell.converged),
            damaged=tuple(f"{row} on {task} ({cell.damaged:,})" for (row, task), cell in cells.items() if cell.damaged),
            num_folds={task.name: len(task.folds) for task in tasks if task.folds},
        )

    @property
    def headings(self) -> tuple[str, ...]:
        """Tasks, and the mean where there are several."""
        return headings(self.tasks)

    def to_json(self) -> dict[str, Any]:
        """All numbers, accuracies as shares of 1; null for an end of an interval that cannot be known."""
        return asdict(self, dict_factory=_known)

    def to_markdown(self) -> str:
        """The tables of accuracies, differences, choices and, where there are, parts as Markdown, in per cent."""
        lines = list(
            markdown_lines(["system", "parameters", "M multiply–adds / s", *self.headings], self._accuracies())
        )
        lines += ["", f"Difference from {self.reference}, in points, on the same test clips ({_NOT_CORRECTED}):", ""]
        lines += markdown_lines(["system", *self.headings], self._differences())
        return "\n".join([*lines, "", self.details(), "", self.note, ""])

    def details(self) -> str:
        """What validation chose and, where there are, the accuracies of parts, as Markdown."""
        lines = ["What validation chose, readout and C:", ""]
        lines += markdown_lines(["system", *self.tasks], self._choices())
        if parts := [(task, part) for task, parts in self.rows[0].accuracy_by_part.items() for part in parts]:
            lines += ["", "Test accuracy by part of the test clips:", ""]
            lines += markdown_lines(["system", *(f"{task}: {part}" for task, part in parts)], self._by_part(parts))
        return "\n".join(lines)

    @property
    def flaws(self) -> list[str]:
        """Sentences on cells that are not what the protocol asks for; none where all are."""
        sentences = []
        if self.unconverged:
            sentences.append(f"Not converged: {', '.join(self.unconverged)}")
        if self.damaged:
            sentences.append(f"Clips were damaged, these are computed again next time: {', '.join(self.damaged)}")
        return sentences

    @property
    def note(self) -> str:
        """What stands under the table."""
        seeds = sorted({row.num_seeds for row in self.rows if row.num_seeds > 1})
        groups = ", ".join(f"{task} {count:,}" for task, count in self.num_groups.items())
        sentences = [
            "Test accuracy in %, with 95 % intervals: paired bootstrap over groups of test clips, widened where groups "
            "are few",
            f"Groups of test clips: {groups}",
            "Each trained row is one training: its interval is of test clips alone",
        ]
        if self.num_folds:
            folds = ", ".join(f"{task} {count}" for task, count in self.num_folds.items())
            sentences.append(f"Mean of folds, each tested once: {folds}")
        if seeds:
            several = " or ".join(map(str, seeds))
            sentences.append(f"Rows with several networks: the mean of {several}, drawn for the interval too")
        sentences.append(f"Protocol {self.protocol_sha256[:16]}")
        return ". ".join([*sentences, *self.flaws]) + "."

    def to_terminal(self, console: Console) -> RichTable:
        """The accuracies, with differences whose interval leaves out 0 marked ▲ and ▼.

        Where the terminal is too narrow for all of it, without parameters and intervals.
        """
        full = self._terminal_table(full=True)
        unbounded = console.options.update(max_width=sys.maxsize)
        return full if console.measure(full, options=unbounded).maximum <= console.width else self._terminal_table()

    def _terminal_table(self, full: bool = False) -> RichTable:
        caption = (
            f"▲ ▼ above, below {self.reference}: the 95 % interval of the difference leaves out 0; {_NOT_CORRECTED}.\n"
            + self.note
            + ("" if full else " This terminal is too narrow for the intervals: see table.md.")
        )
        table = RichTable(box=box.HORIZONTALS, caption=escape(caption), caption_justify="left")
        table.add_column("system", overflow="fold")
        for heading in (*(["parameters"] if full else []), *self.headings):
            table.add_column(escape(heading), justify="right", no_wrap=True)
        for row in self.rows:
            cells = [f"{100 * row.accuracy[h].value:.1f}{_mark(row.difference.get(h))}" for h in self.headings]
            if full:
                intervals = [_ends(row.accuracy[h]) for h in self.headings]
                cells = [f"{cell}\n[dim]{interval}[/]" for cell, interval in zip(cells, intervals, strict=True)]
                cells.insert(0, f"{row.parameters:,}" if row.parameters else "")
            table.add_row(escape(row.name), *cells)
        return table

    def write(self, output: str) -> None:
        """Write ``FILES`` to a folder."""
        markdown, numbers, picture = (storage.join(output, file) for file in FILES)
        storage.write_bytes(markdown, self.to_markdown().encode())
        storage.write_bytes(numbers, json.dumps(self.to_json(), indent=1).encode())
        estimates = {row.name: {h: (i.value, i.low, i.high) for h, i in row.accuracy.items()} for row in self.rows}
        figure = draw_table(
            "Linear evaluation: test accuracy", [row.name for row in self.rows], self.headings, estimates
        )
        save(figure, picture)

    def _accuracies(self) -> Iterator[list[str]]:
        for row in self.rows:
            size = f"{row.parameters:,}" if row.parameters else ""
            work = f"{row.multiply_adds / 1e6:,.0f}" if row.multiply_adds else ""
            yield [row.name, size, work, *(percent(row.accuracy[h]) for h in self.headings)]

    def _differences(self) -> Iterator[list[str]]:
        for row in self.rows:
            if row.difference:
                yield [row.name, *(points(row.difference[h]) for h in self.headings)]

    def _by_part(self, parts: Sequence[tuple[str, str]]) -> Iterator[list[str]]:
        for row in self.rows:
            yield [row.name, *(f"{100 * row.accuracy_by_part[task][part]:.1f}" for task, part in parts)]

    def _choices(self) -> Iterator[list[str]]:
        for row in self.rows:
            yield [row.name, *(_most_common(row.chosen[task]) for task in self.tasks)]


def markdown_lines(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A Markdown table, numbers to the right of the first column."""
    yield f"| {' | '.join(headings)} |"
    yield f"|---|{'--:|' * (len(headings) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _known(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """A part of the JSON file, which knows no NaN."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in items}


def percent(interval: Interval) -> str:
    """An accuracy in % with the ends of its interval, or a dash where they cannot be known."""
    return f"{100 * interval.value:.1f} ({_ends(interval)})"


def _ends(interval: Interval) -> str:
    return "–" if math.isnan(interval.low) else f"{100 * interval.low:.1f}–{100 * interval.high:.1f}"


def points(interval: Interval) -> str:
    """A difference in points, likewise."""
    ends = "–" if math.isnan(interval.low) else f"{100 * interval.low:+.1f} … {100 * interval.high:+.1f}"
    return f"{100 * interval.value:+.1f} ({ends})"


def _most_common(chosen: Sequence[Choice]) -> str:
    """The choice of most seeds and folds, and of how many where they differ."""
    ((choice, count),) = Counter(chosen).most_common(1)
    return f"{choice.readout}, {choice.strength:g}" + (f" ({count} of {len(chosen)})" if count < len(chosen) else "")


def _mark(difference: Interval | None) -> str:
    """Direction of a difference whose interval leaves out 0, one column wide."""
    if difference is None:
        return " "
    return "▲" if difference.low > 0 else "▼" if difference.high < 0 else " "
