"""Draws names of files, labels and runs as they are, in any script that this machine has a font for."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text

logger = logging.getLogger(__name__)

_LAST_RESORT = "Last Resort"
"""Beginning of the name of Matplotlib's own font of placeholders: it has every letter, and shows none."""


@contextmanager
def lettered(figure: Figure, readers_fonts: bool = False) -> Iterator[Figure]:
    """Prepare a figure that is saved within the context.

    Each $ is drawn as a $, because names are not TeX. Letters that Matplotlib's font lacks are drawn in another font of
    this machine. If there is none, they become boxes, and a warning names them once.

    Args:
        figure: the figure.
        readers_fonts: True for text that is kept as text, which the fonts of its reader draw.
    """
    texts = figure.findobj(Text)
    letters = frozenset("" if readers_fonts else "".join(text.get_text() for text in texts))
    families, boxes = _families(letters)
    for text in texts:
        text.set_parse_math(False)
        if families:
            text.set_fontfamily([*dict.fromkeys((*text.get_fontfamily(), *families))])
    if boxes:
        _say_boxes(boxes)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        yield figure


@functools.lru_cache(maxsize=64)
def _families(letters: frozenset[str]) -> tuple[tuple[str, ...], str]:
    """Return the fonts to draw letters with that the usual font lacks, and the letters that no font has."""
    missing = _lacking(findfont(FontProperties()), {letter for letter in letters if letter.isprintable()})
    families = []
    for entry in sorted(fontManager.ttflist, key=_plainest_first) if missing else []:
        if not missing:
            break
        if not entry.name.startswith(_LAST_RESORT) and len(left := _lacking(entry.fname, missing)) < len(missing):
            families.append(entry.name)
            missing = left
    return tuple(families), "".join(sorted(missing))


def _plainest_first(entry: FontEntry) -> tuple[bool, bool, str, str]:
    return entry.style != "normal", "Sans" not in entry.name, entry.name, entry.fname


def _lacking(font_path: str, letters: set[str]) -> set[str]:
    try:
        font = get_font(font_path)
    except (OSError, RuntimeError):  # deleted or damaged since Matplotlib listed it
        return letters
    return {letter for letter in letters if not font.get_char_index(ord(letter))}


@functools.cache
def _say_boxes(letters: str) -> None:
    logger.warning(
        "pictures show boxes in place of %s: no font of this machine has these letters. Install one that does, such as "
        "Noto Sans (CJK), and delete Matplotlib's list of fonts (fontlist-*.json in matplotlib.get_cachedir())",
        letters if len(letters) <= 20 else f"{letters[:20]} …",
    )
