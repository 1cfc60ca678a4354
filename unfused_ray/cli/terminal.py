"""Prints results to the terminal; progress and warnings go to standard error."""

from __future__ import annotations

import shlex

from rich.console import Console, RenderableType


def show(renderable: RenderableType) -> None:
    """Print a table."""
    Console().print(renderable, crop=False)


def say(text: str) -> None:
    """Print a line as it is, however long."""
    Console().print(text, soft_wrap=True, highlight=False, markup=False)


def say_report(folder: str) -> None:
    """Print the command that makes a page of a run."""
    say(f"a page to look at and to listen to: unfused-ray report {shlex.quote(folder)}")
