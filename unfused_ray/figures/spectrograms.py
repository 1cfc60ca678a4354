"""Draws log-mel spectrograms: a sheet of clips by cluster, and single clips for a page."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image

from unfused_ray.config import FrontEndConfig
from unfused_ray.figures.canvas import new_figure, shortened

_COLOURS = "magma"
_STRIDE = 1.15
"""Distance between the starts of neighbouring places in a row, in widths of a place."""
CAPTION_LETTERS = 26
"""Longest caption that has room above a place."""
_LEVELS = 32
"""Number of colours of a single spectrogram: few, so that its file is small."""


@dataclass(frozen=True)
class SheetRow:
    """Clips of one cluster, side by side."""

    title: str
    log_mels: Sequence[np.ndarray | None]
    """(F, T) log-mels of its clips; None is an empty place."""
    captions: Sequence[str]
    """One caption per clip."""


def colour_range(log_mels: Iterable[np.ndarray]) -> tuple[float, float]:
    """Return the values of the first and the last colour, for spectrograms that share one scale."""
    low, high = np.percentile(np.concatenate([image.ravel() for image in log_mels]), [2, 99.5])
    return float(low), float(high)


def draw_sheet(title: str, rows: Sequence[SheetRow], front_end: FrontEndConfig) -> Figure:
    """Draw a sheet of spectrograms with common scales of time and colour."""
    num_columns = max(len(row.log_mels) for row in rows)
    images = [image for row in rows for image in row.log_mels if image is not None]
    colours, num_frames = colour_range(images), max(image.shape[1] for image in images)
    size = (front_end.num_mels, num_frames)
    figure = new_figure(title, 2.0 * num_columns + 1.6, 1.4 * len(rows) + 1.0)
    figure.supxlabel("seconds", fontsize=9)
    axes = figure.subplots(len(rows), squeeze=False, sharex=True)[:, 0]
    for axis, row in zip(axes, rows, strict=True):
        axis.set_ylabel(row.title, rotation=0, ha="right", va="center", fontsize=10, linespacing=1.5, labelpad=8)
        places = [*row.log_mels, *[None] * (num_columns - len(row.log_mels))]
        firsts = draw_row(axis, places, size, colours)
        for first, caption in zip(firsts, row.captions, strict=False):
            axis.text(first, front_end.num_mels + 2, shortened(caption, CAPTION_LETTERS), fontsize=8, color="0.25")
        axis.tick_params(labelsize=8, length=2)
    seconds_per_frame = front_end.hop / front_end.sample_rate
    longest = num_frames * seconds_per_frame + 1e-9
    marks = [mark for mark in MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(0, longest) if 0 <= mark <= longest]
    ticks = [(first + mark / seconds_per_frame, f"{mark:g}") for first in firsts for mark in marks]
    axes[-1].set_xticks([at for at, _ in ticks], [text for _, text in ticks])
    return figure


def draw_row(
    axis: Axes, log_mels: Sequence[np.ndarray | None], size: tuple[int, int], colours: tuple[float, float]
) -> list[int]:
    """Draw spectrograms side by side as one image: separate axes for fifty clips would take matplotlib four seconds.

    Args:
        axis: empty axes; their units are a frame and a band.
        log_mels: (F, T) each; None is an empty place.
        size: F, and the largest number of frames, which is the width of a place.
        colours: values of the first and the last colour.

    Returns:
        The first frame of each place.
    """
    num_bands, num_frames = size
    firsts = [number * round(_STRIDE * num_frames) for number in range(len(log_mels))]
    row_FT = np.full((num_bands, firsts[-1] + num_frames), np.nan, np.float32)
    for first, image in zip(firsts, log_mels, strict=True):
        axis.add_patch(Rectangle((first, 0), num_frames, num_bands, color="0.95", zorder=-1))
        if image is not None:
            row_FT[:, first : first + image.shape[1]] = image
    extent = (0.0, float(row_FT.shape[1]), 0.0, float(num_bands))
    low, high = colours
    axis.imshow(row_FT, origin="lower", aspect="auto", cmap=_COLOURS, vmin=low, vmax=high, extent=extent)
    axis.set(xlim=extent[:2], yticks=[], facecolor="none")
    axis.spines[:].set_visible(False)
    return firsts


def to_png(log_mel_FT: np.ndarray, low: float, high: float) -> bytes:
    """Return one spectrogram as a small PNG without axes, low bands at the bottom.

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
