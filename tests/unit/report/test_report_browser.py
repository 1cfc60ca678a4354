"""The report in headless Chromium: pictures, sounds, sorting and the keyboard work. Run by make test-browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.browser import opened_page
from support.reports import write_runs

from unfused_ray.report import report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.browser

DECODED = "[...document.querySelectorAll('audio')].map(a => a.error ? -1 : a.readyState ? a.duration : 0)"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, tracking_uri: str) -> str:
    """Address of a page of all kinds of runs."""
    folder = tmp_path_factory.mktemp("report")
    report.write(write_runs(folder, tracking_uri).all, str(folder / "page.html"))
    return (folder / "page.html").as_uri()


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    with opened_page(browser, url) as opened:
        yield opened


def test_every_sound_decodes(page: Page) -> None:
    page.wait_for_function(f"{DECODED}.every(seconds => seconds !== 0)")
    seconds = page.evaluate(DECODED)
    assert len(seconds) > 10
    assert all(0.1 < each < 2 for each in seconds)


def test_every_picture_is_drawn(page: Page) -> None:
    sizes = page.evaluate("[...document.images].map(image => image.naturalWidth * image.naturalHeight)")
    assert sizes and all(sizes)


def _trials(page: Page) -> Locator:
    return page.locator("table.sortable", has_text="Trials, the best first")


def _column(table: Locator, number: int) -> list[float]:
    return [float(text.split()[0]) for text in table.locator(f"tbody tr td:nth-child({number})").all_inner_texts()]


def test_tables_sort_by_click(page: Page) -> None:
    table = _trials(page)
    heading = table.locator("thead th", has_text="β")
    for direction in ("descending", "ascending", "descending"):
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == direction
        values = _column(table, 3)
        assert len(values) == 12 and values == sorted(values, reverse=direction == "descending")
    other = table.locator("thead th", has_text="state")
    other.locator("button").click()
    assert (other.get_attribute("aria-sort"), heading.get_attribute("aria-sort")) == ("ascending", "none")


def test_tables_sort_by_keyboard(page: Page) -> None:
    table = _trials(page)
    table.locator("thead button").first.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert _column(table, 2) == sorted(_column(table, 2), reverse=True)
    page.keyboard.press("Space")
    assert _column(table, 2) == sorted(_column(table, 2))


def test_a_cluster_is_chosen_by_keyboard_and_by_click(page: Page) -> None:
    clusters = page.locator(".clusters").first
    names = [text.split(",")[0] for text in clusters.locator("option").all_inner_texts()]
    shown = clusters.locator(".cluster:visible h4")
    assert len(names) > 2 and shown.count() == 1 and shown.inner_text().startswith(names[0])
    clusters.locator("select").focus()
    page.keyboard.press("ArrowDown")
    assert shown.inner_text().startswith(names[1])
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # on the button "next"
    assert shown.count() == 1 and shown.inner_text().startswith(names[2])
    clusters.get_by_role("button", name="previous").click()
    assert shown.inner_text().startswith(names[1])


def test_one_clip_plays_at_a_time(page: Page) -> None:
    sounds = page.locator(".cluster:visible audio")
    for number in (0, 1):
        sounds.nth(number).evaluate("audio => { audio.loop = true; return audio.play(); }")
    page.wait_for_function("[...document.querySelectorAll('audio')].filter(audio => !audio.paused).length === 1")
    assert not sounds.nth(1).evaluate("audio => audio.paused")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_horizontal_scrolling(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 390, "height": 844})
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_it_prints(page: Page, tmp_path: Path) -> None:
    page.pdf(path=str(tmp_path / "page.pdf"))
    assert page.locator("details:not([open])").count() == 0
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
