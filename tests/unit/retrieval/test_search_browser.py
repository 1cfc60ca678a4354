"""The page of a search in headless Chromium: sounds, marks and saving work. Run by make test-browser."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from support.browser import opened_page
from support.sources import tone
from support.vectors import PLACE, write_vectors

from unfused_ray import api
from unfused_ray.retrieval.marks import read_marks

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

COMMA = 'a, "b" 3.wav'


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An index of eight tones in files; one file's name must be quoted in CSV."""
    folder = tmp_path_factory.mktemp("search")
    keys = [COMMA if number == 3 else f"{number}.wav" for number in range(8)]
    for number, key in enumerate(keys):
        soundfile.write(folder / key, tone(number, 12_000), 16_000)
    vectors = np.random.default_rng(0).normal(size=(8, 4)) + 2
    places = [{**PLACE, "uri": str(folder / key)} for key in keys]
    write_vectors(folder / "v", vectors, key=keys, place=places, end_seconds=[0.75] * 8)
    return api.index(vectors=str(folder / "v"), output=str(folder / "i"), metric="cosine").uri


@pytest.fixture
def page(browser: Browser, index: str, tmp_path: Path) -> Iterator[Page]:
    api.search(index, key="0.wav", page=str(tmp_path / "hits.html"))
    with opened_page(browser, (tmp_path / "hits.html").as_uri()) as opened:
        yield opened


def test_marks_are_saved_and_taught_and_shown_again(page: Page, browser: Browser, index: str, tmp_path: Path) -> None:
    page.wait_for_function("[...document.querySelectorAll('audio')].every(a => a.error === null && a.readyState > 0)")
    hits = page.locator(".hits .clip")
    assert hits.count() == 7 and page.locator("audio").count() == 8
    quoted = page.locator(".hits .clip", has_text=COMMA)
    quoted.get_by_label("keep").check()
    hits.filter(has_text="5.wav").get_by_label("keep").check()
    hits.filter(has_text="5.wav").get_by_label("reject").check()  # clears the other box
    assert not hits.filter(has_text="5.wav").get_by_label("keep").is_checked()
    hits.filter(has_text="6.wav").get_by_label("reject").check()
    hits.filter(has_text="6.wav").get_by_label("reject").uncheck()
    assert page.locator("#count").inner_text() == "1 kept, 1 rejected"
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save marks").click()
    marks = tmp_path / "marks.csv"
    saved.value.save_as(marks)
    assert {(mark.key, mark.mark) for mark in read_marks(str(marks))} == {(COMMA, "keep"), ("5.wav", "reject")}
    api.search(index, learn=str(marks), count=3, page=str(tmp_path / "next.html"))
    with opened_page(browser, (tmp_path / "next.html").as_uri()) as following:
        assert following.locator("#count").inner_text() == "1 kept, 1 rejected"
        key = following.locator(".hits .clip").first.get_attribute("data-key")
        following.locator(f'.clip[data-key="{key}"]').first.get_by_label("keep").check()
        boxes = following.locator(f'.clip[data-key="{key}"] input[value=keep]')
        assert all(box.is_checked() for box in boxes.all())  # also among the least sure clips
        with following.expect_download() as saved:
            following.get_by_role("button", name="Save marks").click()
        saved.value.save_as(marks)
    with marks.open(newline="") as file:
        assert sorted(row["mark"] for row in csv.DictReader(file)) == ["keep", "keep", "reject"]


def test_one_clip_plays_at_a_time_and_a_phone_needs_no_scrolling(page: Page) -> None:
    sounds = page.locator("audio")
    for number in (0, 1):
        sounds.nth(number).evaluate("audio => { audio.loop = true; return audio.play(); }")
    page.wait_for_function("[...document.querySelectorAll('audio')].filter(audio => !audio.paused).length === 1")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
