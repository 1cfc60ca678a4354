"""Draws watched accuracies over the epochs, beside those of random networks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from unfused_ray.config import MEAN, QUICK_MEASURES
from unfused_ray.evaluation.systems import TrainedModel
from unfused_ray.figures.canvas import folded, new_figure, shortened, style, width_of
from unfused_ray.runs.provenance import find_run
from unfused_ray.runs.run import Run
from unfused_ray.runs.watched import WatchedCurve, watched_curves

Panels = dict[tuple[str, str], dict[str, WatchedCurve]]
"""Curves by the name of their run, for each task and measure."""
_HEADING_LETTERS = 30
"""Longest line of a panel's heading."""
_DASH = 4.0
"""Length of a dash in line widths; equal lines have their dashes in each other's gaps."""


def panels(runs: Mapping[str, Sequence[WatchedCurve]]) -> Panels:
    """Sort the curves of some runs by task and measure: tasks in their given order, their mean last.

    Args:
        runs: curves by the name of their run.
    """
    found: Panels = {}
    for name, curves in runs.items():
        for curve in curves:
            found.setdefault((curve.task, curve.measure), {})[name] = curve
    tasks = sorted(dict.fromkeys(task for task, _ in found), key=lambda task: task == MEAN)
    return {(task, m): found[task, m] for task in tasks for m in QUICK_MEASURES if (task, m) in found}


def of_models(models: Sequence[TrainedModel], tasks: Sequence[str]) -> dict[str, list[WatchedCurve]]:
    """Return the watched curves of the models' runs, by model; a model without watched runs is left out.

    Args:
        models: models of an evaluation. If a model has a network per task, the curve of each task comes from that
            task's run.
        tasks: names of the tasks.
    """
    found: dict[str, list[WatchedCurve]] = {}
    for model in models:
        for task in tasks:
            if (run := find_run(model.path.replace("{task}", task))) is not None:
                own = [curve for curve in watched_curves(Run(run).history()) if curve.task == task]
                found.setdefault(model.name, []).extend(own)
    return {name: curves for name, curves in found.items() if curves}


def draw_watched(title: str, found: Panels) -> Figure:
    """Draw small multiples over the epochs: one row per task, one panel per measure."""
    tasks = list(dict.fromkeys(task for task, _ in found))
    figure = new_figure(title, 4.0 * len(QUICK_MEASURES), 2.8 * len(tasks) + 0.6)
    grid = figure.subplots(len(tasks), len(QUICK_MEASURES), squeeze=False, sharex=True)
    names = list(dict.fromkeys(name for curves in found.values() for name in curves))
    for axes, task in zip(grid, tasks, strict=True):
        axes[0].set_ylabel("% of validation clips", fontsize=9)
        for axis, measure in zip(axes, QUICK_MEASURES, strict=True):
            axis.set_title(folded(f"{task}: {measure}", _HEADING_LETTERS), loc="left", fontsize=11, fontweight="bold")
            _draw(axis, found.get((task, measure), {}), names)
    for axis in grid[-1]:
        axis.set_xlabel("epoch")
    _name(figure, {str(line.get_label()): line for axis in grid.flat for line in axis.lines}, 4, 9)
    return figure


def draw_panel(curves: Mapping[str, WatchedCurve]) -> Figure:
    """Draw one small panel without a title; curves by the name of their run, which is '' if there is only one."""
    figure = new_figure("", 4.4, 3.0)
    axis = figure.add_subplot()
    _draw(axis, curves, list(curves))
    axis.set(xlabel="epoch", ylabel="% of validation clips")
    _name(figure, {str(line.get_label()): line for line in axis.lines}, 2, 7.5)
    return figure


def _name(figure: Figure, lines: Mapping[str, Line2D], most_columns: int, points: float) -> None:
    """Add a legend below the panels, in as many columns as have room; make the picture higher for more than two
    rows."""
    names = [shortened(name) for name in lines]
    columns = min(max(int(figure.get_figwidth() / (0.7 + width_of(names, points))), 1), most_columns)
    rows = math.ceil(len(names) / columns)
    columns = math.ceil(len(names) / rows)  # in two rows, a run stands above the random networks of its shape
    figure.set_figheight(figure.get_figheight() + max(rows - 2, 0) * 1.7 * points / 72)
    # Handles and names are given, because Matplotlib itself leaves out names that begin with _.
    figure.legend(lines.values(), names, loc="outside lower left", ncols=columns, fontsize=points, frameon=False)


def _draw(axis: Axes, curves: Mapping[str, WatchedCurve], names: Sequence[str]) -> None:
    """Draw a line per run and, dashed in its colour, the level of random networks; equal dashed lines all stay visible.

    Args:
        axis: empty axes.
        curves: curves by the name of their run.
        names: runs of the whole picture, whose places decide the colours: a run without a curve here keeps its own.
    """
    gap = _DASH * max(len(names) - 1, 1)
    for name, curve in curves.items():
        number = names.index(name)
        accuracies, colour = [100 * accuracy for accuracy in curve.accuracies], f"C{number}"
        label = name or "as it trains"
        axis.plot(curve.epochs, accuracies, color=colour, marker="o", markersize=4, linewidth=1.8, label=label)
        beside = f"random, shape of {name}" if name else "random networks of its shape"
        dashes = (_DASH * number, (_DASH, gap))
        axis.axhline(100 * curve.random, color=colour, linestyle=dashes, linewidth=1.3, label=beside)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axis.margins(y=0.12)
    style(axis)
