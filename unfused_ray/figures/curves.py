"""Draws metrics over the epochs: the health of a run, and single panels of a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unfused_ray.figures.canvas import new_figure, shortened, style
from unfused_ray.figures.metrics import Metric
from unfused_ray.runs.reader import curves

Curves = Mapping[str, tuple[Sequence[int], Sequence[float]]]
"""Epochs and values of each curve, by name."""
_PANELS_A_ROW = 4
_LEGEND_LETTERS = 40
"""Longest name that has room in a legend within a panel."""


def draw_health(title: str, history: Sequence[Mapping[str, float]], metrics: Sequence[Metric]) -> Figure:
    """Draw small multiples over the epochs, a panel per metric; a metric of several heads has a curve for each."""
    num_rows = math.ceil(len(metrics) / _PANELS_A_ROW)
    figure = new_figure(title, 3.5 * _PANELS_A_ROW, 3.0 * num_rows)
    for number, metric in enumerate(metrics, start=1):
        first = figure.axes[0] if figure.axes else None
        axis = figure.add_subplot(num_rows, _PANELS_A_ROW, number, sharex=first)
        axis.set_title(f"{metric.heading}\n", loc="left", fontsize=11, fontweight="bold")
        axis.text(0, 1.03, metric.note, transform=axis.transAxes, fontsize=8.5, color="0.35")
        series = curves(history, metric.name)
        _draw(axis, series)
        if not series:
            axis.text(0.5, 0.5, "from the second epoch on", transform=axis.transAxes, ha="center", color="0.5")
        if number > len(metrics) - _PANELS_A_ROW:
            axis.set_xlabel("epoch")
    return figure


def draw_curves(series: Curves) -> Figure:
    """Draw one small panel without a title."""
    figure = new_figure("", 4.4, 2.7)
    axis = figure.add_subplot()
    _draw(axis, series)
    axis.set_xlabel("epoch")
    return figure


def _draw(axis: Axes, series: Curves) -> None:
    """Draw a line per curve; several curves are named in a legend."""
    for epochs, values in series.values():
        axis.plot(epochs, values, marker="o", markersize=4, linewidth=1.8)
    if len(series) > 1:
        # Handles and names are given, because Matplotlib itself leaves out names that begin with _.
        axis.legend(axis.lines, [shortened(name, _LEGEND_LETTERS) for name in series], fontsize=8, frameon=False)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axis.ticklabel_format(axis="y", useOffset=False)
    style(axis)
