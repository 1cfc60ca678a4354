"""Draws log-mel spectrograms: a sheet of clips by cluster, and single clips for a page."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from unfused_ray.config import FrontEndConfig
from unfused_ray.figures.canvas import new_figure

_COLOURS = "magma"
_LEVELS = 32
"""Colours of a single spectrogram: few, so that its file is small."""


@dataclass(frozen=True)
class SheetRow:
    """Clips of one cluster, side by side."""

    title: str
    log_mels: Sequence[np.ndarray | None]
    """(F, T) log-mels of its clips; None is an empty place."""
    captions: Sequence[str]
    """One a clip."""


def colour_range(log_mels: Iterable[np.ndarray]) -> tuple[float, float]:
    """Values of the first and the last colour of spectrograms that share one scale."""
    low, high = np.percentile(np.concatenate([image.ravel() for image in log_mels]), [2, 99.5])
    return float(low), float(high)


def draw_sheet(title: str, rows: Sequence[SheetRow], front_end: FrontEndConfig) -> Figure:
    """A sheet of spectrograms, all on one scale of time and of colour."""
    num_columns = max(len(row.log_mels) for row in rows)
    images = [image for row in rows for image in row.log_mels if image is not None]
    low, high = colour_range(images)
    seconds_per_frame = front_end.hop / front_end.sample_rate
    longest = max(image.shape[1] for image in images) * seconds_per_frame
    figure = new_figure(title, 2.0 * num_columns + 1.6, 1.4 * len(rows) + 1.0)
    figure.supxlabel("seconds", fontsize=9)
    grid = figure.subplots(len(rows), num_columns, squeeze=False, sharex=True, sharey=True)
    grid[0, 0].set(xlim=(0, longest), ylim=(0, front_end.num_mels), yticks=[])
    for axes, row in zip(grid, rows, strict=True):
        axes[0].set_ylabel(row.title, rotation=0, ha="right", va="center", fontsize=10, linespacing=1.5, labelpad=8)
        for axis in axes:
            axis.spines[:].set_visible(False)
            axis.set_facecolor("0.94")
            axis.tick_params(labelsize=8, length=2)
        for axis, image, caption in zip(axes, row.log_mels, row.captions, strict=False):
            axis.set_title(caption, fontsize=8, loc="left", pad=2, color="0.25")
            if image is not None:
                extent = (0.0, image.shape[1] * seconds_per_frame, 0.0, float(front_end.num_mels))
                axis.imshow(image, origin="lower", aspect="auto", cmap=_COLOURS, vmin=low, vmax=high, extent=extent)
        axes[0].set(xlim=(0, longest))  # imshow has fitted the axes to its image
    return figure


def to_png(log_mel_FT: np.ndarray, low: float, high: float) -> bytes:
    """One spectrogram as a small PNG without axes, low bands at the bottom.

    Args:
        log_mel_FT: (bands, frames).
        low, high: values of the first and the last colour.
    """
    shares = (log_mel_FT[::-1] - low) / max(high - low, 1e-9)
    image = Image.fromarray((shares.clip(0, 1) * (_LEVELS - 1)).round().astype(np.uint8), "P")
    colours = mpl.colormaps[_COLOURS](np.linspace(0, 1, _LEVELS))[:, :3]
    image.putpalette((colours * 255).round().astype(np.uint8).ravel().tolist())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True, bits=5)
    return buffer.getvalue()
