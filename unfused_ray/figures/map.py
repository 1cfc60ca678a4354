"""Draws the map: embeddings in two dimensions (t-SNE), as points coloured by class or cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

from unfused_ray.figures.canvas import new_figure, shortened, width_of

_COLOURS = (
    *("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple"),
    *("tab:brown", "tab:pink", "tab:olive", "tab:cyan", "black"),
)
_SHAPES = ("o", "^")
MAX_NAMED = len(_COLOURS) * len(_SHAPES)
"""Largest number of groups of points that a reader can tell apart."""
MAX_POINTS = 2000
"""Largest number of points in a map, for which t-SNE takes seconds."""
_MIN_DIRECTIONS = 3
_PCA_DIM = 50
_PERPLEXITY = 30.0


@dataclass(frozen=True)
class Grouping:
    """Groups of a map's points, such as classes or clusters."""

    title: str
    ids: np.ndarray
    """(N,) int64 index into ``names``; -1 is drawn in grey, behind the other points."""
    names: Sequence[str]
    """Names of the groups, at most ``MAX_NAMED``."""
    rest: str
    """Name of the grey points."""

    @classmethod
    def of(cls, title: str, groups_N: np.ndarray, shown: Sequence[int], names: Sequence[str], rest: str) -> Self:
        """Name some groups; points of all other groups, and of none (-1), are grey."""
        places = {group: place for place, group in enumerate(shown)}
        ids = np.array([places.get(group, -1) for group in groups_N.tolist()], np.int64)
        return cls(title, ids, names, rest)

    @property
    def labels(self) -> list[str]:
        """Names of the groups with their numbers of points, for a legend; the grey points, if any, are the first."""
        counts = Counter(self.ids.tolist())
        rest = [f"{self.rest} ({counts[-1]})"] if counts[-1] else []
        return [*rest, *(f"{shortened(name)} ({counts[group]})" for group, name in enumerate(self.names))]


def by_class(title: str, class_ids_N: np.ndarray, class_names: Sequence[str]) -> Grouping:
    """Group points by class, in the order of the names; of many classes, name the most common.

    Args:
        title: title of the grouping.
        class_ids_N: index of each point's class in ``class_names``; -1 is a point without a class.
        class_names: names of all classes.
    """
    counts = Counter(class_ids_N[class_ids_N >= 0].tolist())
    shown = sorted((group for group, _ in counts.most_common(MAX_NAMED)), key=lambda group: class_names[group])
    if len(shown) < len(counts):
        title += f": the {len(shown)} most common of {len(counts)}"
    return Grouping.of(title, class_ids_N, shown, [class_names[group] for group in shown], "others")


# One thread: on a busy machine OpenMP's threads wait for each other (60 points: 0.9 s on one, 43 s on two busy cores).
@threadpool_limits.wrap(limits=1)
def project(embeddings_ND: np.ndarray) -> np.ndarray | None:
    """Return two coordinates per embedding, (N, 2): directions → 50 principal components → t-SNE, deterministically.

    Return None if there are fewer than three directions, as from a collapsed network: t-SNE might then end the process.
    """
    if len(embeddings_ND) < _MIN_DIRECTIONS or embeddings_ND.shape[1] < 2:
        return None
    unit = normalize(embeddings_ND)
    if len(np.unique(unit.round(6), axis=0)) < _MIN_DIRECTIONS:
        return None
    components = PCA(min(_PCA_DIM, *unit.shape), random_state=0).fit_transform(unit)
    perplexity = min(_PERPLEXITY, (len(unit) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(components)


def draw_map(title: str, positions_N2: np.ndarray, groupings: Sequence[Grouping]) -> Figure:
    """Draw the same points once per grouping, coloured by it."""
    legends = [max(2.0, 0.8 + width_of(grouping.labels, 9)) for grouping in groupings]
    figure = new_figure(title, 6.2 * len(groupings) + sum(legends), 6.6)
    for axis, grouping in zip(figure.subplots(1, len(groupings), squeeze=False).flat, groupings, strict=True):
        _draw_points(axis, positions_N2, grouping)
    return figure


def _draw_points(axis: Axes, positions_N2: np.ndarray, grouping: Grouping) -> None:
    rest = positions_N2[grouping.ids < 0]
    if len(rest):
        axis.scatter(rest[:, 0], rest[:, 1], s=9, color="0.8", linewidths=0)
    for group in range(len(grouping.names)):
        points = positions_N2[grouping.ids == group]
        colour, shape = _COLOURS[group % len(_COLOURS)], _SHAPES[group // len(_COLOURS)]
        axis.scatter(points[:, 0], points[:, 1], s=16, color=colour, marker=shape, linewidths=0)
    axis.set_title(grouping.title, loc="left", fontsize=11, fontweight="bold")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_color("0.85")
    axis.legend(
        axis.collections,
        grouping.labels,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        fontsize=9,
        markerscale=1.6,
    )
