"""Commands and tables as a terminal shows them."""

from __future__ import annotations

import io
from dataclasses import dataclass

from rich.console import RenderableType

from unfused_ray.progress import plain_console


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str


def text_of(renderable: RenderableType) -> str:
    """The text of a table, on a wide terminal."""
    text = io.StringIO()
    plain_console(file=text, width=200).print(renderable, crop=False)
    return text.getvalue()
