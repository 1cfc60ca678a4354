"""Draws watched accuracies over the epochs, beside those of random networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unfused_ray.config import MEAN, QUICK_MEASURES
from unfused_ray.evaluation.systems import TrainedModel
from unfused_ray.figures.canvas import new_figure, style
from unfused_ray.runs.provenance import find_run
from unfused_ray.runs.run import Run
from unfused_ray.runs.watched import WatchedCurve, watched_curves

Panels = dict[tuple[str, str], dict[str, WatchedCurve]]
"""Curves by the name of their run, for each task and measure."""
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
    for axes, task in zip(grid, tasks, strict=True):
        axes[0].set_ylabel("% of validation clips", fontsize=9)
        for axis, measure in zip(axes, QUICK_MEASURES, strict=True):
            axis.set_title(f"{task}: {measure}", loc="left", fontsize=11, fontweight="bold")
            _draw(axis, found.get((task, measure), {}))
    for axis in grid[-1]:
        axis.set_xlabel("epoch")
    lines = {line.get_label(): line for axis in grid.flat for line in axis.lines}
    figure.legend(lines.values(), lines, loc="outside lower left", ncols=4, fontsize=9, frameon=False)
    return figure


def draw_panel(curves: Mapping[str, WatchedCurve]) -> Figure:
    """Draw one small panel without a title; curves by the name of their run, which is '' if there is only one."""
    figure = new_figure("", 4.4, 3.0)
    axis = figure.add_subplot()
    _draw(axis, curves)
    axis.set(xlabel="epoch", ylabel="% of validation clips")
    figure.legend(loc="outside lower left", ncols=2, fontsize=7.5, frameon=False)
    return figure


def _draw(axis: Axes, curves: Mapping[str, WatchedCurve]) -> None:
    """Draw a line per run and, dashed in its colour, the level of random networks; equal dashed lines all stay
    visible."""
    gap = _DASH * max(len(curves) - 1, 1)
    for number, (name, curve) in enumerate(curves.items()):
        accuracies, colour = [100 * accuracy for accuracy in curve.accuracies], f"C{number}"
        label = name or "as it trains"
        axis.plot(curve.epochs, accuracies, color=colour, marker="o", markersize=4, linewidth=1.8, label=label)
        beside = f"random, shape of {name}" if name else "random networks of its shape"
        dashes = (_DASH * number, (_DASH, gap))
        axis.axhline(100 * curve.random, color=colour, linestyle=dashes, linewidth=1.3, label=beside)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.margins(y=0.12)
    style(axis)
