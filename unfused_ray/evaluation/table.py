"""The table of an evaluation: accuracies with intervals, differences from one row, and what each row costs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from unfused_ray import storage
from unfused_ray.evaluation import bootstrap
from unfused_ray.evaluation.bootstrap import Interval
from unfused_ray.evaluation.cells import Cell
from unfused_ray.evaluation.drawings import draw_table
from unfused_ray.evaluation.pictures import save
from unfused_ray.evaluation.protocol import Protocol
from unfused_ray.evaluation.systems import System, largest_cost
from unfused_ray.evaluation.tasks import Task

MEAN = "mean"
"""Heading of the mean over the tasks."""
FILES = ("table.md", "table.json", "table.png")
"""What a table is written as."""


@dataclass(frozen=True)
class Row:
    """One system, in shares of 1."""

    name: str
    parameters: int | None
    """Of its largest network, where every task has one of its own; None without a network."""
    multiply_adds: float | None
    """For a second of audio."""
    num_seeds: int
    accuracy: dict[str, Interval]
    """By task, and their mean."""
    difference: dict[str, Interval]
    """From the reference row, drawn with the same test clips; empty for that row."""


@dataclass(frozen=True)
class Table:
    """What an evaluation found."""

    tasks: tuple[str, ...]
    rows: tuple[Row, ...]
    reference: str
    protocol_sha256: str
    unconverged: tuple[str, ...]
    """Cells whose chosen fit ended before it converged, as "row on task"."""

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
        config = protocol.config.bootstrap
        values = {place: cell.accuracy for place, cell in cells.items()}
        draws = {
            (system.name, task.name): bootstrap.replicates(
                cells[system.name, task.name].correct,
                task.groups[task.splits == "test"],
                config.replicates,
                config.seed,
                task.name,
            )
            for system in systems
            for task in tasks
        }
        names = [task.name for task in tasks]
        for system in systems:
            values[system.name, MEAN] = sum(values[system.name, name] for name in names) / len(names)
            draws[system.name, MEAN] = bootstrap.mean_over_tasks([draws[system.name, name] for name in names])
        headings = [*names, *([MEAN] if len(names) > 1 else [])]
        rows = []
        for system in systems:
            cost = largest_cost(system, tasks)
            rows.append(
                Row(
                    name=system.name,
                    parameters=cost[0] if cost else None,
                    multiply_adds=cost[1] if cost else None,
                    num_seeds=max(len(cells[system.name, name].correct) for name in names),
                    accuracy={h: bootstrap.interval(values[system.name, h], draws[system.name, h]) for h in headings},
                    difference={}
                    if system.name == reference
                    else {
                        h: bootstrap.difference(
                            values[system.name, h], draws[system.name, h], values[reference, h], draws[reference, h]
                        )
                        for h in headings
                    },
                )
            )
        unconverged = tuple(f"{row} on {task}" for (row, task), cell in cells.items() if not cell.converged)
        return cls(tuple(names), tuple(rows), reference, protocol.sha256, unconverged)

    @property
    def headings(self) -> tuple[str, ...]:
        """Tasks, and the mean where there are several."""
        return (*self.tasks, *([MEAN] if len(self.tasks) > 1 else []))

    def to_json(self) -> dict[str, Any]:
        """All numbers, accuracies as shares of 1."""
        return asdict(self)

    def to_markdown(self) -> str:
        """Both parts as Markdown, accuracies in per cent."""
        lines = list(_markdown(["system", "parameters", "M multiply–adds / s", *self.headings], self._accuracies()))
        lines += ["", f"Difference from {self.reference}, in points, on the same test clips:", ""]
        lines += _markdown(["system", *self.headings], self._differences())
        return "\n".join([*lines, "", self.note, ""])

    @property
    def note(self) -> str:
        """What stands under the table."""
        seeds = sorted({row.num_seeds for row in self.rows if row.num_seeds > 1})
        several = f"; rows with several networks: the mean of {' or '.join(map(str, seeds))}" if seeds else ""
        return (
            "Test accuracy in %, with 95 % intervals (paired bootstrap over groups of test clips"
            f"{several}). Protocol {self.protocol_sha256[:16]}."
            + (f" Not converged: {', '.join(self.unconverged)}." if self.unconverged else "")
        )

    def to_terminal(self, console: Console) -> RichTable:
        """The accuracies, with differences whose interval leaves out 0 marked ▲ and ▼.

        Where the terminal is too narrow for all of it, without parameters and intervals.
        """
        full = self._terminal_table(full=True)
        unbounded = console.options.update(max_width=sys.maxsize)
        return full if console.measure(full, options=unbounded).maximum <= console.width else self._terminal_table()

    def _terminal_table(self, full: bool = False) -> RichTable:
        caption = (
            f"▲ ▼ above, below {self.reference} by more than chance (95 % interval of the difference).\n{self.note}"
            + ("" if full else " This terminal is too narrow for the intervals: see table.md.")
        )
        table = RichTable(box=box.HORIZONTALS, caption=escape(caption), caption_justify="left")
        table.add_column("system", overflow="fold")
        for heading in (*(["parameters"] if full else []), *self.headings):
            table.add_column(escape(heading), justify="right", no_wrap=True)
        for row in self.rows:
            cells = [f"{100 * row.accuracy[h].value:.1f}{_mark(row.difference.get(h))}" for h in self.headings]
            if full:
                intervals = [f"{100 * row.accuracy[h].low:.1f}–{100 * row.accuracy[h].high:.1f}" for h in self.headings]
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
            yield [row.name, size, work, *(_percent(row.accuracy[h]) for h in self.headings)]

    def _differences(self) -> Iterator[list[str]]:
        for row in self.rows:
            if row.difference:
                yield [row.name, *(_points(row.difference[h]) for h in self.headings)]


def _markdown(headings: Sequence[str], rows: Iterator[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield f"|---|{'--:|' * (len(headings) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _percent(interval: Interval) -> str:
    return f"{100 * interval.value:.1f} ({100 * interval.low:.1f}–{100 * interval.high:.1f})"


def _points(interval: Interval) -> str:
    return f"{100 * interval.value:+.1f} ({100 * interval.low:+.1f} … {100 * interval.high:+.1f})"


def _mark(difference: Interval | None) -> str:
    """Direction of a difference whose interval leaves out 0, one column wide."""
    if difference is None:
        return " "
    return "▲" if difference.low > 0 else "▼" if difference.high < 0 else " "
