"""Opens pages that may neither report an error nor send a request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@contextmanager
def opened_page(browser: Browser, url: str) -> Iterator[Page]:
    """Open a page offline; fail at the end if it wrote to the console, raised, requested a URL or showed a dialog."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True, accept_downloads=True)
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
    opened.on("dialog", lambda dialog: complaints.append(dialog.message))
    opened.goto(url)
    yield opened
    context.close()
    assert not complaints
