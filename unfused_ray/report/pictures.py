"""Drawings as data URIs: sharp, small, and without a file beside the page."""

from __future__ import annotations

import base64
import io

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from unfused_ray.figures.run_figures import without_math

_LEVELS = 32


def data_uri(kind: str, data: bytes) -> Markup:
    """``data`` as a URI of the media type ``kind``; nothing in it is to be escaped."""
    return Markup(f"data:{kind};base64,{base64.b64encode(data).decode()}")


def as_svg(figure: Figure) -> Markup:
    """A drawing as a data URI, sharp at any size; the same drawing gives the same bytes."""
    buffer = io.BytesIO()
    # Text stays text, in the reader's sans-serif: as outlines it would be most of the bytes.
    with mpl.rc_context({"svg.hashsalt": "unfused-ray", "svg.fonttype": "none", "font.family": "sans-serif"}):
        without_math(figure).savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    return data_uri("image/svg+xml", buffer.getvalue())


def spectrogram(log_mel_FT: np.ndarray, low: float, high: float) -> Markup:
    """A log-mel spectrogram in few colours, low bands at the bottom, as a data URI.

    Args:
        log_mel_FT: (bands, frames).
        low, high: values of the first and the last colour.
    """
    shares = (log_mel_FT[::-1] - low) / max(high - low, 1e-9)
    image = Image.fromarray((shares.clip(0, 1) * (_LEVELS - 1)).round().astype(np.uint8), "P")
    colours = mpl.colormaps["magma"](np.linspace(0, 1, _LEVELS))[:, :3]
    image.putpalette((colours * 255).round().astype(np.uint8).ravel().tolist())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True, bits=5)
    return data_uri("image/png", buffer.getvalue())
