"""Prints results to the terminal; progress and warnings go to standard error."""

from __future__ import annotations

import shlex

from rich.console import RenderableType

from unfused_ray.progress import plain_console


def show(renderable: RenderableType) -> None:
    """Print a table."""
    plain_console().print(renderable, crop=False)


def say(text: str) -> None:
    """Print a line as it is, however long."""
    plain_console().print(text, soft_wrap=True, highlight=False)


def say_report(folder: str) -> None:
    """Print the command that makes a page of a run."""
    say(f"a page with pictures and sounds: unfused-ray report {shlex.quote(folder)}")
