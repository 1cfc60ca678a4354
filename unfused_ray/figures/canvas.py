"""Makes empty figures, and writes finished ones as PNG and SVG."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable
from unicodedata import east_asian_width

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from unfused_ray import storage
from unfused_ray.lettering import lettered

_INCHES_A_LETTER = 0.0085
"""Average width of a letter, for each point of its size."""
_TITLE_POINTS = 13
_MOST_LETTERS = 60
"""Longest name of a row, a class or a run that a picture has room for."""
_DPI = 110


def new_figure(title: str, width: float, height: float) -> Figure:
    """Make an empty figure, width and height in inches; wrap a title that is wider than the figure."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    lines = textwrap.fill(title, max(20, int(width / (_INCHES_A_LETTER * _TITLE_POINTS))))
    figure.suptitle(lines, x=0.01, ha="left", fontsize=_TITLE_POINTS)
    return figure


def shortened(name: str, most: int = _MOST_LETTERS) -> str:
    """Return a name without its middle if it has more than ``most`` letters, as both ends may tell names apart."""
    if len(name) <= most:
        return name
    end = most // 3
    return f"{name[: most - end - 1]}…{name[-end:]}"


def folded(heading: str, letters: int) -> str:
    """Return the heading of a panel in at most three lines of so many letters."""
    return textwrap.fill(shortened(heading, 5 * letters // 2), letters)


def width_of(names: Iterable[str], points: float) -> float:
    """Return about the width in inches of the longest name, in letters of a size in points.

    A picture has to be made wide enough for its names: Matplotlib would take their room from the axes.
    """
    letters = (sum(2 if east_asian_width(letter) in "WF" else 1 for letter in name) for name in names)
    return max(letters, default=0) * _INCHES_A_LETTER * points


def open_axes(figure: Figure) -> Axes:
    """Add one pair of axes in the style of :func:`style`."""
    axis = figure.add_subplot()
    style(axis)
    return axis


def style(axis: Axes) -> None:
    """Give axes a pale grid behind the data, and open them at the top and on the right."""
    axis.grid(color="0.92")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, uri: str) -> str:
    """Write a figure as PNG; return ``uri``."""
    picture = io.BytesIO()
    with lettered(figure):
        figure.savefig(picture, format="png", dpi=_DPI)
    storage.write_bytes(uri, picture.getvalue())
    return uri


def to_svg(figure: Figure) -> bytes:
    """Return a figure as SVG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    # Text stays text, in the reader's sans-serif font: as outlines it would make up most of the bytes.
    with (
        mpl.rc_context({"svg.hashsalt": "unfused-ray", "svg.fonttype": "none", "font.family": "sans-serif"}),
        lettered(figure, readers_fonts=True),
    ):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    return buffer.getvalue()
