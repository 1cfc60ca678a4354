"""Draws a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from unfused_ray.figures.canvas import new_figure, shortened, width_of

_MAX_COUNTED = 20
"""Largest number of classes for which the cells have room for counts."""
_MAX_NAMED = 150
"""Largest number of classes for which names have room; a picture of more classes is no larger."""


def draw_confusion(title: str, confusion_KK: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draw a confusion matrix: colours are shares of the true class's clips, numbers in the cells count clips.

    Args:
        title: title of the drawing.
        confusion_KK: counts of clips by true class (row) and predicted class (column).
        class_names: names of the rows and columns. With more than 20 classes the cells have no numbers; with more than
            150 the rows and columns have no names.
    """
    num_classes = len(class_names)
    sizes_K = confusion_KK.sum(axis=1)
    shares_KK = confusion_KK / np.maximum(sizes_K, 1)[:, None]
    has_counts = num_classes <= _MAX_COUNTED
    side = min(num_classes, _MAX_NAMED) * (0.45 if has_counts else 0.2)
    fontsize = 9 if has_counts else 7
    columns = [shortened(name) for name in class_names] if num_classes <= _MAX_NAMED else []
    rows = [f"{name} ({size:,})" for name, size in zip(columns, sizes_K.tolist(), strict=False)]
    width, height = max(3.2, 1.7 + width_of(rows, fontsize)), max(2.2, 1.2 + width_of(columns, fontsize))
    figure = new_figure(title, side + width, side + height)
    axis = figure.add_subplot()
    image = axis.imshow(shares_KK, cmap="Blues", vmin=0, vmax=1)
    if columns:
        axis.set_yticks(range(num_classes), rows, fontsize=fontsize)
        axis.set_xticks(range(num_classes), columns, fontsize=fontsize, rotation=90)
        axis.set(xlabel="predicted", ylabel="true (clips)")
    else:
        axis.set(xticks=[], yticks=[], ylabel="true")
        axis.set_xlabel(f"predicted ({num_classes:,} classes, too many to name: in the order of their names)")
    axis.spines[:].set_color("0.85")
    if has_counts:
        for true, predicted in np.argwhere(confusion_KK).tolist():
            colour = "white" if shares_KK[true, predicted] > 0.5 else "black"
            text = f"{confusion_KK[true, predicted]:,}"
            axis.text(predicted, true, text, ha="center", va="center", fontsize=8, color=colour)
    bar = figure.colorbar(image, ax=axis, shrink=0.7, aspect=25, format=lambda share, _: f"{share:.0%}")
    bar.set_label("share of the true class", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    return figure
