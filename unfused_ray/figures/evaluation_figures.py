"""The drawings of an evaluation: where a classifier errs, and what every system reaches on every task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unfused_ray.figures.run_figures import new_figure

_MAX_COUNTED = 20
"""Classes up to which the cells of a confusion matrix have room for their counts."""
_PANELS_A_ROW = 7
_MEAN = "mean"

Estimate = tuple[float, float, float]
"""An accuracy, and the ends of its 95 % interval, as shares of 1."""


def draw_confusion(title: str, confusion_KK: np.ndarray, class_names: Sequence[str]) -> Figure:
    """A confusion matrix: colours are shares of the true class's clips, the numbers in the cells are clips.

    Args:
        title: of the drawing.
        confusion_KK: clips by true class (row) and predicted class (column).
        class_names: of the rows and columns. With more than 20 the cells have no numbers.
    """
    num_classes = len(class_names)
    sizes_K = confusion_KK.sum(axis=1)
    shares_KK = confusion_KK / np.maximum(sizes_K, 1)[:, None]
    side = num_classes * (0.45 if num_classes <= _MAX_COUNTED else 0.2)
    figure = new_figure(title, side + 3.2, side + 2.2)
    axis = figure.add_subplot()
    image = axis.imshow(shares_KK, cmap="Blues", vmin=0, vmax=1)
    fontsize = 9 if num_classes <= _MAX_COUNTED else 7
    rows = [f"{name} ({size:,})" for name, size in zip(class_names, sizes_K.tolist(), strict=True)]
    axis.set_yticks(range(num_classes), rows, fontsize=fontsize)
    axis.set_xticks(range(num_classes), class_names, fontsize=fontsize, rotation=90)
    axis.set(xlabel="predicted", ylabel="true (clips)")
    axis.spines[:].set_color("0.85")
    if num_classes <= _MAX_COUNTED:
        for true, predicted in np.argwhere(confusion_KK).tolist():
            colour = "white" if shares_KK[true, predicted] > 0.5 else "black"
            text = f"{confusion_KK[true, predicted]:,}"
            axis.text(predicted, true, text, ha="center", va="center", fontsize=8, color=colour)
    bar = figure.colorbar(image, ax=axis, shrink=0.7, aspect=25, format=lambda share, _: f"{share:.0%}")
    bar.set_label("share of the true class", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    return figure


def draw_table(
    title: str, systems: Sequence[str], tasks: Sequence[str], values: Mapping[str, Mapping[str, Estimate | None]]
) -> Figure:
    """Accuracies as dots with their 95 % intervals: a panel a task, a line a system.

    Panels have scales of their own: compare lines within a panel.

    Args:
        title: of the drawing.
        systems: from top to bottom.
        tasks: from left to right; one that is called "mean" is of the others, and set apart.
        values: by system, then by task; one that is missing or None is drawn as a dash.
    """
    num_rows = math.ceil(len(tasks) / _PANELS_A_ROW)
    num_columns = math.ceil(len(tasks) / num_rows)
    figure = new_figure(title, 2.0 * num_columns + 2.0, num_rows * (0.3 * len(systems) + 1.0) + 0.6)
    figure.supxlabel("accuracy in %, with its 95 % interval", fontsize=9)
    for number, task in enumerate(tasks):
        axis = figure.add_subplot(num_rows, num_columns, number + 1)
        axis.set_title(task, loc="left", fontsize=11, fontweight="bold")
        _draw_estimates(axis, [values[system].get(task) for system in systems])
        axis.set_yticks(range(len(systems)), systems if number % num_columns == 0 else [], fontsize=10)
        if task == _MEAN:
            axis.set_facecolor("0.95")
    return figure


def _draw_estimates(axis: Axes, estimates: Sequence[Estimate | None]) -> None:
    """A dot, its interval and its number on each line, the first on top."""
    known = {line: estimate for line, estimate in enumerate(estimates) if estimate is not None}
    for line, (value, low, high) in known.items():
        axis.plot([100 * low, 100 * high], [line, line], color="tab:blue", linewidth=2.5, alpha=0.5, zorder=2)
        axis.plot([100 * value], [line], color="tab:blue", marker="o", markersize=6, zorder=3)
    for line in range(len(estimates)):
        text = f"{100 * known[line][0]:.1f}" if line in known else "–"
        axis.text(1.03, line, text, transform=axis.get_yaxis_transform(), va="center", fontsize=8.5, color="0.25")
    axis.set_ylim(len(estimates) - 0.5, -0.5)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    axis.tick_params(labelsize=8, length=0)
    axis.grid(color="0.9")
    axis.set_axisbelow(True)
    axis.spines[:].set_visible(False)
