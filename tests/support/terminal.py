"""The result of a command, and a table as a terminal shows it."""

from __future__ import annotations

import io
from dataclasses import dataclass

from rich.console import RenderableType

from unfused_ray.progress import plain_console


@dataclass(frozen=True)
class Ended:
    """Exit code and output of a finished command."""

    code: int
    out: str
    err: str


def text_of(renderable: RenderableType) -> str:
    """Return the text of a table on a terminal 200 columns wide."""
    text = io.StringIO()
    plain_console(file=text, width=200).print(renderable, crop=False)
    return text.getvalue()
