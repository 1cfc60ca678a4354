"""Shows the progress of a job, as a bar on a terminal or a line every few seconds in a log, and a summary at its
end."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Column, Table
from rich.text import Text

_LOG_SECONDS = 10.0


def plain_console(**options: Any) -> Console:
    """Return a console with these options that prints text unchanged: ``[x]`` and ``:x:`` may be parts of a path."""
    return Console(markup=False, emoji=False, **options)


@functools.cache
def terminal() -> Console:
    """Return the only console for standard error: a line that another console prints would break an open bar."""
    return plain_console(stderr=True)


class Progress:
    """Progress of one job; a context manager. ``update`` may be called as often as you like.

    Args:
        name: title of the bar.
        total: total number of units of work.
        unit: name of a unit, in the plural; ``%`` for a share, which is shown without a count and a rate.
        done: number of units done before; they do not count for the rate.
        console: console to write to; standard error by default.
    """

    def __init__(self, name: str, total: int, unit: str, done: int = 0, console: Console | None = None) -> None:
        self.name = name
        self.total = total
        self.unit = unit
        self.done = self._first = done
        self._console = console or terminal()
        self._start = self._last_line = time.monotonic()
        self._bar = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn() if unit == "%" else MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=total, completed=done, figures="")

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        return (self.done - self._first) / max(time.monotonic() - self._start, 1e-9)

    def update(self, done: int, **figures: float | str) -> None:
        """Show ``done`` units of the total, with ``figures`` beside them."""
        moved, self.done = done != self.done, done
        share, count, rate = f"{done / max(self.total, 1):.0%}", "", []
        if self.unit != "%":
            share, count = f"({share})", f"{done}/{self.total} {self.unit} "
            rate = [f"{_rate(self.rate)} {self.unit}/s"]
        text = "  ".join([*rate, *(f"{name} {_short(v)}" for name, v in figures.items())])
        self._bar.update(self._task, completed=done, figures=text)
        now = time.monotonic()
        if not self._console.is_terminal and moved and (now - self._last_line >= _LOG_SECONDS or done >= self.total):
            self._last_line = now
            left = (self.total - done) / self.rate if self.rate else float("inf")
            eta = f"{_duration(left)} left" if left < float("inf") else "time left unknown"
            self._console.print(
                f"{self.name}: {count}{share}, {', '.join(filter(None, [eta, text]))}",
                soft_wrap=True,
                highlight=False,
            )

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


def summary(title: str, rows: Mapping[str, float | str]) -> Group:
    """Make a title and a table of names and figures."""
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right", overflow="fold")
    for name, value in rows.items():
        table.add_row(Text(name), Text(_short(value)))
    return Group(Text(title, overflow="ignore", no_wrap=True), *([table] if rows else []))


def described(title: str) -> Table:
    """Make an empty table of names and texts with a title; paths that are longer than a line are not cut."""
    return Table(Column(), Column(overflow="fold"), title=title, title_justify="left", show_header=False)


def _rate(value: float) -> str:
    """Return a rate with one decimal, or with two significant digits if it is less than one."""
    return f"{value:.1f}" if value >= 1 or not value else f"{value:.2g}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else str(timedelta(seconds=round(seconds)))


def _short(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
