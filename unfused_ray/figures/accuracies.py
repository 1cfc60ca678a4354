"""Draws accuracies with their intervals: every system on every task, and accuracy against size and operations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from unfused_ray.config import MEAN
from unfused_ray.evaluation.bootstrap import Interval
from unfused_ray.evaluation.cells import MEASURES
from unfused_ray.evaluation.table import EvaluationTable
from unfused_ray.figures.canvas import folded, new_figure, open_axes, shortened, width_of

_PANELS_A_ROW = 7
_HEADING_LETTERS = 24
"""Longest line of a panel's heading."""
_DASHES = ("--", ":", "-.", (0, (7, 3)), (0, (1, 4)), (0, (7, 2, 1, 2, 1, 2)))
"""Line styles that readers can tell apart."""


def draw_table(
    title: str, systems: Sequence[str], panels: Sequence[Sequence[str]], values: Mapping[str, Mapping[str, Interval]]
) -> Figure:
    """Draw accuracies as dots with their 95 % intervals: one panel per task and measure, one line per system.

    Each panel has its own scale, so compare lines only within a panel.

    Args:
        title: title of the drawing.
        systems: names of the lines, from top to bottom.
        panels: rows of headings; a row of more than seven continues below. "mean" and "mean, …" are set apart.
        values: accuracies in shares of 1, by system, then by heading; a missing one is drawn as a dash.
    """
    rows = [row[first : first + _PANELS_A_ROW] for row in panels for first in range(0, len(row), _PANELS_A_ROW)]
    num_columns = max(map(len, rows))
    names = [shortened(system) for system in systems]
    width = 2.0 * num_columns + max(2.0, 0.8 + width_of(names, 10))
    lines = max(folded(heading, _HEADING_LETTERS).count("\n") for row in rows for heading in row)
    figure = new_figure(title, width, len(rows) * (0.3 * len(systems) + 1.0 + 0.2 * lines) + 0.6)
    figure.supxlabel("% of the test clips, with the 95 % interval", fontsize=9)
    for place, heading in ((r * num_columns + c, text) for r, row in enumerate(rows) for c, text in enumerate(row)):
        axis = figure.add_subplot(len(rows), num_columns, place + 1)
        axis.set_title(folded(heading, _HEADING_LETTERS), loc="left", fontsize=11, fontweight="bold")
        _draw_estimates(axis, [values[system].get(heading) for system in systems])
        axis.set_yticks(range(len(systems)), names if place % num_columns == 0 else [], fontsize=10)
        if heading.partition(",")[0] == MEAN:
            axis.set_facecolor("0.95")
    return figure


def draw_evaluation(title: str, table: EvaluationTable) -> Figure:
    """Draw the table of an evaluation: one row of panels per measure, the headline first."""
    panels = [[f"{heading}, {measure}" for heading in table.headings] for measure in MEASURES]
    values = {
        row.name: {
            f"{heading}, {measure}": row.accuracy[measure][heading]
            for measure in MEASURES
            for heading in table.headings
        }
        for row in table.rows
    }
    return draw_table(title, list(values), panels, values)


def _draw_estimates(axis: Axes, estimates: Sequence[Interval | None]) -> None:
    """Draw a dot, its interval and its number on each line, the first line on top."""
    for line, estimate in enumerate(estimates):
        text = "–"
        if estimate is not None:
            text = f"{100 * estimate.value:.1f}"
            ends = [100 * estimate.low, 100 * estimate.high]
            axis.plot(ends, [line, line], color="tab:blue", linewidth=2.5, alpha=0.5, zorder=2)
            axis.plot([100 * estimate.value], [line], color="tab:blue", marker="o", markersize=6, zorder=3)
        axis.text(1.03, line, text, transform=axis.get_yaxis_transform(), va="center", fontsize=8.5, color="0.25")
    axis.set_ylim(len(estimates) - 0.5, -0.5)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    axis.tick_params(labelsize=8, length=0)
    axis.grid(color="0.9")
    axis.set_axisbelow(True)
    axis.spines[:].set_visible(False)


def draw_by_parameters(title: str, found: Mapping[str, tuple[int | None, Interval]]) -> Figure:
    """Draw a measure against parameters, on a logarithmic axis, with 95 % intervals.

    Args:
        title: title of the drawing.
        found: parameters and measure in shares of 1, by system; a system of size None is a dashed line.
    """
    figure = new_figure(title, 10.0, 6.5)
    axis = open_axes(figure)
    best_first = sorted(found, key=lambda name: -found[name][1].value)
    handles: list[Line2D] = []
    for place, name in enumerate(best_first):
        (parameters, accuracy), colour = found[name], f"C{place % 10}"
        label = f"{shortened(name)}: {100 * accuracy.value:.1f}"
        if parameters is None:
            handles.append(axis.axhline(100 * accuracy.value, color="0.6", linestyle="--", label=label))
            continue
        # Systems of equal size are placed side by side, around that size.
        alike = [other for other in best_first if found[other][0] == parameters]
        x = parameters * 1.04 ** (alike.index(name) - (len(alike) - 1) / 2)
        if not math.isnan(accuracy.low):
            axis.plot([x, x], [100 * accuracy.low, 100 * accuracy.high], color=colour, alpha=0.4, linewidth=2)
        handles += axis.plot([x], [100 * accuracy.value], "os^D"[place // 10 % 4], color=colour, label=label)
    axis.set_xscale("log")
    sizes = sorted({parameters for parameters, _ in found.values() if parameters})
    axis.set_xticks(sizes, [f"{size / 1e6:.3g} M" for size in sizes])
    axis.set_xticks([], minor=True)
    axis.set_xlabel("parameters of the frozen encoder (rows of one size are set a little apart)")
    axis.set_ylabel("% of the test clips")
    if found:  # handles are given, because Matplotlib itself leaves out names that begin with _
        axis.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    return figure


def draw_by_operations(
    title: str, curves: Mapping[str, Sequence[tuple[float, Interval]]], levels: Mapping[str, Interval]
) -> Figure:
    """Draw a measure against the operations of a training, on a logarithmic axis, with 95 % intervals.

    Args:
        title: title of the drawing.
        curves: points of each curve: 10¹² operations, and the measure in shares of 1.
        levels: systems that cost no operations here, such as random networks, drawn as dashed lines.
    """
    figure = new_figure(title, 10.0, 6.5)
    axis = open_axes(figure)
    drawn: list[tuple[float, Line2D]] = []
    for place, (name, points) in enumerate(curves.items()):
        colour, marker = f"C{place % 10}", "os^D"[place // 10 % 4]
        for tflop, accuracy in points:
            axis.plot([tflop] * 2, [100 * accuracy.low, 100 * accuracy.high], color=colour, alpha=0.3, linewidth=2)
        tflops, values = zip(*sorted((tflop, 100 * accuracy.value) for tflop, accuracy in points), strict=True)
        label = f"{shortened(name)}: {', '.join(f'{value:.1f}' for value in values)}"
        drawn.append((values[-1], *axis.plot(tflops, values, color=colour, marker=marker, label=label)))
    for place, (name, accuracy) in enumerate(levels.items()):
        value, style = 100 * accuracy.value, _DASHES[place % len(_DASHES)]
        drawn.append(
            (value, axis.axhline(value, color="0.4", linestyle=style, label=f"{shortened(name)}: {value:.1f}"))
        )
    if curves:
        axis.set_xscale("log")
        shown: list[float] = []
        for tflop in sorted({tflop for points in curves.values() for tflop, _ in points}):
            if not shown or tflop > 1.4 * shown[-1]:
                shown.append(tflop)
        axis.set_xticks(shown, [f"{tflop:,.3g}" if tflop < 100 else f"{tflop:,.0f}" for tflop in shown])
        axis.set_xticks([], minor=True)
    axis.set_xlabel("10¹² operations of the training, with the runs that it builds on")
    axis.set_ylabel("% of the test clips")
    if drawn:  # ordered by height
        handles = [line for _, line in sorted(drawn, key=lambda pair: pair[0], reverse=True)]
        axis.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    return figure
