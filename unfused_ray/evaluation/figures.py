"""The pictures of a run as drawings of plain arrays; what they show is chosen in ``pictures.py``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from unfused_ray.config import DecarConfig, FrontEndConfig
from unfused_ray.evaluation.run_folder import curves

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


@dataclass(frozen=True)
class Cluster:
    """A row of the sheet."""

    title: str
    log_mels: Sequence[np.ndarray | None]
    """(F, T) normalised log-mels of its clips; None is an empty place."""
    captions: Sequence[str]
    """One a clip."""


def draw_health(title: str, history: Sequence[Mapping[str, float]], method: DecarConfig) -> Figure:
    """Small multiples over the epochs: is the loss falling, are the clusters stable, is anything collapsing?"""
    guess = sum(math.log(clusters) for clusters in method.num_clusters) / len(method.num_clusters)
    panels = {
        "loss": ("loss", f"cross entropy; a blind guess is {guess:.2f}"),
        "agreement": ("agreement", "share of views nearest to their pseudo-label"),
        "nmi_previous": ("stability", "NMI with the epoch before; 1 is unchanged"),
        "effective_rank": ("effective rank", f"directions used, of {method.projection_dim}; near 1 is collapse"),
        "inertia": ("inertia", "squared distances to the centroids, summed"),
        "size_entropy": ("cluster sizes: entropy", "1 is all clusters equal, 0 is one cluster"),
        "largest_share": ("largest cluster", "share of all clips"),
        "clips_per_second": ("speed", "clips per second"),
    }
    figure = _figure(title, 14, 6)
    axes = figure.subplots(2, 4, sharex=True)
    for axis, (name, (heading, note)) in zip(axes.flat, panels.items(), strict=True):
        axis.set_title(f"{heading}\n", loc="left", fontsize=11, fontweight="bold")
        axis.text(0, 1.03, note, transform=axis.transAxes, fontsize=8.5, color="0.35")
        series = curves(history, name)
        for head, (epochs, values) in series.items():
            axis.plot(epochs, values, marker="o", markersize=4, linewidth=1.8, label=head)
        if not series:
            axis.text(0.5, 0.5, "from the second epoch on", transform=axis.transAxes, ha="center", color="0.5")
        elif len(series) > 1:
            axis.legend(fontsize=8, frameon=False)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.ticklabel_format(axis="y", useOffset=False)
        axis.grid(color="0.92")
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("epoch")
    return figure


def draw_map(title: str, positions_N2: np.ndarray, groupings: Sequence[Grouping]) -> Figure:
    """The same points once for each grouping, coloured by it."""
    figure = _figure(title, 8.2 * len(groupings), 6.6)
    for axis, grouping in zip(figure.subplots(1, len(groupings), squeeze=False).flat, groupings, strict=True):
        _draw_points(axis, positions_N2, grouping)
    return figure


def _draw_points(axis: Axes, positions_N2: np.ndarray, grouping: Grouping) -> None:
    rest = positions_N2[grouping.ids < 0]
    if len(rest):
        axis.scatter(rest[:, 0], rest[:, 1], s=9, color=_GREY, linewidths=0, label=f"{grouping.rest} ({len(rest)})")
    for group, name in enumerate(grouping.names):
        points = positions_N2[grouping.ids == group]
        axis.scatter(
            points[:, 0],
            points[:, 1],
            s=16,
            color=_COLOURS[group % len(_COLOURS)],
            marker=_SHAPES[group // len(_COLOURS)],
            linewidths=0,
            label=f"{name} ({len(points)})",
        )
    axis.set_title(grouping.title, loc="left", fontsize=11, fontweight="bold")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_color("0.85")
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9, markerscale=1.6)


def draw_clusters(title: str, clusters: Sequence[Cluster], front_end: FrontEndConfig) -> Figure:
    """A sheet of log-mel spectrograms, a row a cluster, all on one scale of time and of colour."""
    num_columns = max(len(cluster.log_mels) for cluster in clusters)
    images = [image for cluster in clusters for image in cluster.log_mels if image is not None]
    low, high = np.percentile(np.concatenate([image.ravel() for image in images]), [2, 99.5])
    seconds_per_frame = front_end.hop / front_end.sample_rate
    longest = max(image.shape[1] for image in images) * seconds_per_frame
    figure = _figure(title, 2.0 * num_columns + 1.6, 1.4 * len(clusters) + 1.0)
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


def _figure(title: str, width: float, height: float) -> Figure:
    """An empty picture, sizes in inches."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    return figure
