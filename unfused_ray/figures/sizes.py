"""Draws the sizes of a run's clusters."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from unfused_ray.figures.canvas import new_figure

_MAX_BARS = 60
"""Largest number of sizes for which each has its own bar."""


def draw_sizes(sizes_K: np.ndarray, even: float, group: str) -> Figure:
    """Draw a histogram of the sizes, with a dashed line at the size of equal clusters.

    Args:
        sizes_K: number of clips in each cluster.
        even: number of clips in a cluster if all were equal.
        group: word for a cluster.
    """
    figure = new_figure("", 8.8, 2.9)
    axis = figure.add_subplot()
    whole = np.arange(sizes_K.min(), sizes_K.max() + 2)
    bins = (whole - 0.5).tolist() if len(whole) <= _MAX_BARS else 40
    axis.hist(sizes_K, bins=bins, color="tab:blue", rwidth=0.9)
    axis.axvline(even, color="0.35", linewidth=1.2, linestyle="--")
    axis.set(xlabel=f"clips of a {group}", ylabel=f"{group}s", xlim=(0, sizes_K.max() * 1.02 + 1))
    axis.spines[["top", "right"]].set_visible(False)
    return figure
