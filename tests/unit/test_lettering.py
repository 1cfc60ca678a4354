"""Names of any script are drawn, or the letters that become boxes are named; nothing else is said."""

from __future__ import annotations

import io
import logging
import warnings

import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.text import Text

from unfused_ray import lettering
from unfused_ray.lettering import lettered


@pytest.fixture(autouse=True)
def _nothing_said_before() -> None:
    lettering._families.cache_clear()
    lettering._say_boxes.cache_clear()


def drawn(name: str) -> Text:
    """Save a figure with a name on it, where a warning is an error; return its text."""
    figure = Figure()
    text = figure.text(0.5, 0.5, name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with lettered(figure):
            figure.savefig(io.BytesIO(), format="png")
    return text


def test_letters_that_no_font_has_are_named_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    usual = [entry for entry in lettering.fontManager.ttflist if entry.name == "DejaVu Sans"]
    monkeypatch.setattr(lettering.fontManager, "ttflist", usual)
    for _ in range(2):
        assert drawn("锣 gong, 1 $ and 2 $\n").get_fontfamily() == ["sans-serif"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and "boxes in place of 锣: no font of this machine" in record.getMessage()


def test_letters_of_another_font_are_drawn_in_it(caplog: pytest.LogCaptureFixture):
    usual = get_font(findfont(FontProperties())).get_charmap()
    other = get_font(findfont("STIXGeneral")).get_charmap()  # comes with Matplotlib
    letter = next(chr(code) for code in sorted(other) if code not in usual and chr(code).isalpha())
    families = drawn(f"{letter} gong").get_fontfamily()
    assert families[0] == "sans-serif" and len(families) == 2
    assert ord(letter) in get_font(findfont(families[1])).get_charmap()
    assert not caplog.records


def test_text_that_its_reader_draws_has_no_boxes(caplog: pytest.LogCaptureFixture):
    figure = Figure()
    figure.text(0.5, 0.5, "锣")
    with lettered(figure, readers_fonts=True):
        assert figure.texts[0].get_fontfamily() == ["sans-serif"]
    assert not caplog.records
