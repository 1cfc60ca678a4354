"""The pictures of a run as drawings of plain arrays; what they show is chosen in ``pictures.py``."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from unfused_ray.config import FrontEndConfig
from unfused_ray.figures.run_folder import curves

_GREY = "0.8"
_COLOURS = (
    "tab:blue",
    "tab:orange",
    "tab:green",
    "tab:red",
    "tab:purple",
    "tab:brown",
    "tab:pink",
    "tab:olive",
    "tab:cyan",
    "black",
)
_SHAPES = ("o", "^")
MAX_NAMED = len(_COLOURS) * len(_SHAPES)
"""Groups of points that a reader can still tell apart."""
_PANELS_A_ROW = 4
_INCHES_A_LETTER = 0.105
"""Of a title, on average."""


@dataclass(frozen=True)
class Panel:
    """One figure of the history over the epochs."""

    figure: str
    """Its name in the history."""
    heading: str
    note: str
    """How it is read: unit, direction, what a bad value is."""


@dataclass(frozen=True)
class Grouping:
    """Points of a map, by something that has names."""

    title: str
    ids: np.ndarray
    """(N,) int64 index into ``names``; -1 is drawn in grey, behind the others."""
    names: Sequence[str]
    """At most ``MAX_NAMED``."""
    rest: str
    """What the grey points are."""

    @classmethod
    def of(cls, title: str, groups_N: np.ndarray, shown: Sequence[int], names: Sequence[str], rest: str) -> Self:
        """Name some of the groups that points are in; the points of all others, and of none (-1), are the rest."""
        places = {group: place for place, group in enumerate(shown)}
        ids = np.array([places.get(group, -1) for group in groups_N.tolist()], np.int64)
        return cls(title, ids, names, rest)


@dataclass(frozen=True)
class Cluster:
    """A row of the sheet."""

    title: str
    log_mels: Sequence[np.ndarray | None]
    """(F, T) normalised log-mels of its clips; None is an empty place."""
    captions: Sequence[str]
    """One a clip."""


def draw_health(title: str, history: Sequence[Mapping[str, float]], panels: Sequence[Panel]) -> Figure:
    """Small multiples over the epochs; a figure of several heads has a curve for each."""
    num_rows = math.ceil(len(panels) / _PANELS_A_ROW)
    figure = new_figure(title, 3.5 * _PANELS_A_ROW, 3.0 * num_rows)
    for number, panel in enumerate(panels, start=1):
        first = figure.axes[0] if figure.axes else None
        axis = figure.add_subplot(num_rows, _PANELS_A_ROW, number, sharex=first)
        axis.set_title(f"{panel.heading}\n", loc="left", fontsize=11, fontweight="bold")
        axis.text(0, 1.03, panel.note, transform=axis.transAxes, fontsize=8.5, color="0.35")
        series = curves(history, panel.figure)
        draw_curves(axis, series)
        if not series:
            axis.text(0.5, 0.5, "from the second epoch on", transform=axis.transAxes, ha="center", color="0.5")
        if number > len(panels) - _PANELS_A_ROW:
            axis.set_xlabel("epoch")
    return figure


def draw_curves(axis: Axes, series: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> None:
    """Curves over the epochs: by name, epochs and values; one of several is named in a legend."""
    for epochs, values in series.values():
        axis.plot(epochs, values, marker="o", markersize=4, linewidth=1.8)
    if len(series) > 1:
        # Handles and names, because Matplotlib by itself leaves out names that begin with _.
        axis.legend(axis.lines, list(series), fontsize=8, frameon=False)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.ticklabel_format(axis="y", useOffset=False)
    axis.grid(color="0.92")
    axis.spines[["top", "right"]].set_visible(False)


def draw_map(title: str, positions_N2: np.ndarray, groupings: Sequence[Grouping]) -> Figure:
    """The same points once for each grouping, coloured by it."""
    figure = new_figure(title, 8.2 * len(groupings), 6.6)
    for axis, grouping in zip(figure.subplots(1, len(groupings), squeeze=False).flat, groupings, strict=True):
        _draw_points(axis, positions_N2, grouping)
    return figure


def _draw_points(axis: Axes, positions_N2: np.ndarray, grouping: Grouping) -> None:
    rest = positions_N2[grouping.ids < 0]
    labels = []
    if len(rest):
        axis.scatter(rest[:, 0], rest[:, 1], s=9, color=_GREY, linewidths=0)
        labels.append(f"{grouping.rest} ({len(rest)})")
    for group, name in enumerate(grouping.names):
        points = positions_N2[grouping.ids == group]
        labels.append(f"{name} ({len(points)})")
        axis.scatter(
            points[:, 0],
            points[:, 1],
            s=16,
            color=_COLOURS[group % len(_COLOURS)],
            marker=_SHAPES[group // len(_COLOURS)],
            linewidths=0,
        )
    axis.set_title(grouping.title, loc="left", fontsize=11, fontweight="bold")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_color("0.85")
    axis.legend(
        axis.collections,
        labels,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        fontsize=9,
        markerscale=1.6,
    )


def draw_clusters(title: str, clusters: Sequence[Cluster], front_end: FrontEndConfig) -> Figure:
    """A sheet of log-mel spectrograms, a row a cluster, all on one scale of time and of colour."""
    num_columns = max(len(cluster.log_mels) for cluster in clusters)
    images = [image for cluster in clusters for image in cluster.log_mels if image is not None]
    low, high = np.percentile(np.concatenate([image.ravel() for image in images]), [2, 99.5])
    seconds_per_frame = front_end.hop / front_end.sample_rate
    longest = max(image.shape[1] for image in images) * seconds_per_frame
    figure = new_figure(title, 2.0 * num_columns + 1.6, 1.4 * len(clusters) + 1.0)
    figure.supxlabel("seconds", fontsize=9)
    grid = figure.subplots(len(clusters), num_columns, squeeze=False, sharex=True, sharey=True)
    grid[0, 0].set(xlim=(0, longest), ylim=(0, front_end.num_mels), yticks=[])
    for row, cluster in zip(grid, clusters, strict=True):
        row[0].set_ylabel(cluster.title, rotation=0, ha="right", va="center", fontsize=10, linespacing=1.5, labelpad=8)
        for axis in row:
            axis.spines[:].set_visible(False)
            axis.set_facecolor("0.94")
            axis.tick_params(labelsize=8, length=2)
        for axis, image, caption in zip(row, cluster.log_mels, cluster.captions, strict=False):
            axis.set_title(caption, fontsize=8, loc="left", pad=2, color="0.25")
            if image is not None:
                extent = (0.0, image.shape[1] * seconds_per_frame, 0.0, float(front_end.num_mels))
                axis.imshow(image, origin="lower", aspect="auto", cmap="magma", vmin=low, vmax=high, extent=extent)
        row[0].set(xlim=(0, longest))  # imshow has fitted the axes to its image
    return figure


def new_figure(title: str, width: float, height: float) -> Figure:
    """An empty picture, sizes in inches; a title that is longer than the picture is wide is folded."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    folded = textwrap.fill(title, max(20, int(width / _INCHES_A_LETTER)))
    figure.suptitle(folded, x=0.01, ha="left", fontsize=13)
    return figure


def without_math(figure: Figure) -> Figure:
    """A drawing, to be saved, in whose texts a $ is a $: names of runs, classes and clips are no TeX."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    return figure
