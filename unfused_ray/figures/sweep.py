"""Draws a sweep: its trials on a map of two parameters, its trials over all parameters, and parameters' importance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation

from unfused_ray.figures.canvas import new_figure, open_axes

MIN_SURFACE = 15
"""Least number of trials for which a surface between them is drawn."""
_COLOURS = "viridis"
_LONGEST_EDGE = 0.4
"""Longest edge of the surface's triangles, as a share of the map's diagonal; nothing is known over longer gaps."""


@dataclass(frozen=True)
class Parameter:
    """A field that differs between trials."""

    name: str
    """Dotted name, as in the configuration."""
    scale: Literal["linear", "log", "category"]
    categories: Sequence[str]
    """Values of a category as JSON, in order."""

    @classmethod
    def of(cls, name: str, values: Sequence[Any], is_log: bool) -> Self:
        """Make the parameter that has these values; values that are not numbers are categories."""
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
            return cls(name, "category", sorted({json.dumps(value) for value in values}))
        return cls(name, "log" if is_log else "linear", ())

    @property
    def label(self) -> str:
        """Name of the parameter on an axis."""
        short = self.name.rpartition(".")[2]
        return {"alpha": "α", "beta": "β"}.get(short, short.replace("_", " "))

    def text(self, place: float) -> str:
        """Return the value at a place on its axis, as text."""
        if self.scale == "category":
            return self.categories[round(place)].strip('"')
        return f"{10.0**place if self.scale == 'log' else place:.3g}"

    def places(self, values: Sequence[Any]) -> np.ndarray:
        """Return the places of values on an even axis: logarithms to base 10 on a log axis, numbers of categories."""
        if self.scale == "category":
            return np.array([self.categories.index(json.dumps(value)) for value in values], float)
        numbers = np.array(values, float)
        return np.log10(numbers) if self.scale == "log" else numbers


@dataclass(frozen=True)
class ScoredTrials:
    """Trials that can be compared, because all were scored after the same epoch."""

    epoch: int
    ids: Sequence[str]
    points: Sequence[Mapping[str, Any]]
    """Value of each parameter, by name; one point per trial."""
    accuracies: np.ndarray
    """(T,) mean validation accuracies after that epoch, as shares of 1."""

    def values(self, parameter: Parameter) -> list[Any]:
        """Return the value of a parameter in each trial."""
        return [point[parameter.name] for point in self.points]

    def places(self, parameters: Sequence[Parameter]) -> np.ndarray:
        """Return the places of the trials on the axes of some parameters: (T, parameters)."""
        return np.stack([parameter.places(self.values(parameter)) for parameter in parameters], axis=1)


def draw_parameter_map(scored: ScoredTrials, x: Parameter, y: Parameter, marks: Mapping[str, str]) -> Figure:
    """Draw trials as points over two parameters, coloured by accuracy, with a surface between them where dense.

    Args:
        scored: the trials.
        x, y: the parameters.
        marks: names of trials to mark, by id.
    """
    figure = new_figure("", 7.2, 4.4)
    axis = open_axes(figure)
    places = scored.places((x, y))
    accuracies = 100 * scored.accuracies
    scale = {"cmap": _COLOURS, "vmin": accuracies.min(), "vmax": max(accuracies.max(), accuracies.min() + 0.1)}
    if (triangles := surface(places, (x, y))) is not None:
        axis.tricontourf(triangles, accuracies, levels=12, alpha=0.45, **scale)
    points = axis.scatter(places[:, 0], places[:, 1], c=accuracies, s=52, edgecolors="0.25", linewidths=0.8, **scale)
    for trial, (left, bottom) in zip(scored.ids, places, strict=True):
        if trial in marks:
            axis.scatter([left], [bottom], s=190, facecolors="none", edgecolors="tab:red", linewidths=1.8)
            above = bottom <= places[:, 1].mean()
            _annotate(
                axis, marks[trial], (left, bottom), (0, 11 if above else -11), "center", "bottom" if above else "top"
            )
    axis.use_sticky_edges = False  # those of the surface would cut the outermost points in half
    axis.margins(0.09)
    _set_axis(axis, "x", x)
    _set_axis(axis, "y", y)
    bar = figure.colorbar(points, ax=axis, aspect=30)
    bar.set_label("mean score on validation clips in %", fontsize=9)
    bar.outline.set_visible(False)
    return figure


def surface(places_T2: np.ndarray, parameters: Sequence[Parameter]) -> Triangulation | None:
    """Return triangles between neighbouring trials; None if they are too few or collinear, or a parameter is no number.

    Accuracies are interpolated linearly within the triangles and nowhere else. Outside the trials, and where neighbours
    are far apart, the map stays empty.
    """
    if any(parameter.scale == "category" for parameter in parameters):
        return None
    spans = np.ptp(places_T2, axis=0)
    unit_T2 = (places_T2 - places_T2.min(axis=0)) / np.where(spans > 0, spans, 1)
    if len(np.unique(unit_T2, axis=0)) < MIN_SURFACE or np.linalg.matrix_rank(unit_T2 - unit_T2.mean(axis=0)) < 2:
        return None
    triangles = Triangulation(unit_T2[:, 0], unit_T2[:, 1])
    corners = unit_T2[triangles.triangles]
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
    mask = (edges > _LONGEST_EDGE * np.sqrt(2)).any(axis=1)
    return None if mask.all() else Triangulation(places_T2[:, 0], places_T2[:, 1], triangles.triangles, mask)


def draw_parallel(scored: ScoredTrials, parameters: Sequence[Parameter], marks: Mapping[str, str]) -> Figure:
    """Draw one line per trial over all parameters to its accuracy; trials in ``marks`` get thick lines."""
    figure = new_figure("", 1.9 * (len(parameters) + 1) + 1.4, 3.9)
    axis = figure.add_subplot()
    order = np.argsort(scored.accuracies, kind="stable")
    columns = [*scored.places(parameters).T, 100 * scored.accuracies]
    shares = np.stack([_share(column) for column in columns], axis=1)
    colours = colormaps[_COLOURS](_share(scored.accuracies))
    for trial in order:
        marked = scored.ids[trial] in marks
        axis.plot(shares[trial], color=colours[trial], linewidth=3.2 if marked else 1.4, alpha=1 if marked else 0.7)
        if marked:
            end = (len(columns) - 1, shares[trial, -1])
            _annotate(axis, marks[scored.ids[trial]], end, (6, 0), "left", "center")
    for place, column in enumerate(columns):
        axis.axvline(place, color="0.5", linewidth=1)
        parameter = parameters[place] if place < len(parameters) else None
        is_category = parameter is not None and parameter.scale == "category"
        ticks = np.unique(column if is_category else np.linspace(column.min(), column.max(), 3))
        for share, value in zip(_share(ticks), ticks, strict=True):
            text = parameter.text(value) if parameter else f"{value:.1f}"
            axis.text(place - 0.03, share, text, ha="right", va="center", fontsize=8, color="0.35")
    labels = [parameter.label for parameter in parameters] + ["score in %"]
    axis.set_xticks(range(len(labels)), labels, fontweight="bold")
    axis.set(yticks=[], xlim=(-0.35, len(labels) - 0.5), ylim=(-0.06, 1.06))
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    return figure


def draw_importance(shares: Mapping[str, float], parameters: Sequence[Parameter]) -> Figure:
    """Draw one bar per parameter, the most important on top."""
    labels = {parameter.name: parameter.label for parameter in parameters}
    figure = new_figure("", 5.2, 0.5 * len(shares) + 0.9)
    axis = figure.add_subplot()
    values = [100 * share for share in shares.values()]
    axis.barh(range(len(shares)), values, color="tab:blue", height=0.6)
    for line, value in enumerate(values):
        axis.text(value + 1, line, f"{value:.0f} %", va="center", fontsize=9)
    axis.set_yticks(range(len(shares)), [labels[name] for name in shares])
    axis.set(ylim=(len(shares) - 0.5, -0.5), xlim=(0, 112), xlabel="share of the variance explained, in %")
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    return figure


def _annotate(
    axis: Axes, text: str, place: tuple[float, float], offset: tuple[int, int], horizontal: str, vertical: str
) -> None:
    axis.annotate(
        text,
        place,
        xytext=offset,
        textcoords="offset points",
        ha=horizontal,
        va=vertical,
        fontsize=9,
        fontweight="bold",
    )


def _set_axis(axis: Axes, which: str, parameter: Parameter) -> None:
    """Label an even axis, with ticks at the values on it."""
    ticks = axis.xaxis if which == "x" else axis.yaxis
    ticks.set_label_text(parameter.label + (" (log)" if parameter.scale == "log" else ""))
    if parameter.scale == "category":
        places = range(len(parameter.categories))
        ticks.set_ticks(places, [parameter.text(place) for place in places])
    elif parameter.scale == "log":
        low, high = ticks.get_view_interval()
        decades = np.arange(np.ceil(low), np.floor(high) + 1)
        if len(decades) > 1:
            ticks.set_ticks(decades)
        ticks.set_major_formatter(lambda place, _: parameter.text(place))


def _share(column: np.ndarray) -> np.ndarray:
    """Scale values to 0 to 1; 0.5 if all are equal."""
    span = np.ptp(column)
    return (column - column.min()) / span if span else np.full(len(column), 0.5)
