"""The parts of a page, for any kind of run, and the one HTML file made from them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from unfused_ray import storage
from unfused_ray.config import flatten
from unfused_ray.figures.canvas import to_svg


@dataclass(frozen=True)
class Picture:
    """A drawing."""

    heading: str
    alt: str
    """Description of the drawing in words."""
    source: str
    """A data URI."""
    note: str = ""
    width: Literal["third", "half", "two-thirds", "full"] = "third"
    """Share of a wide page."""


@dataclass(frozen=True)
class PageCell:
    """A cell of a table."""

    text: str
    value: float | None = None
    """Sort key; without it the text is the sort key."""
    detail: str = ""
    """A second line, such as an interval."""


@dataclass(frozen=True)
class PageTable:
    """A table that readers can sort by any column."""

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[PageCell]]
    """The first cell of a row is its name."""
    note: str = ""


@dataclass(frozen=True)
class Sound:
    """A clip to listen to and to look at."""

    audio: str
    """A data URI."""
    spectrogram: str
    """A data URI."""
    seconds: float
    """Seconds of sound that can be heard."""
    facts: str
    """Length of the clip, and whether it was cut."""


@dataclass(frozen=True)
class PageClip:
    """A clip to listen to."""

    place: str
    """Reason why it is shown, such as "nearest"."""
    key: str
    """Name of the clip in the source."""
    facts: str
    sound: Sound


@dataclass(frozen=True)
class PageCluster:
    """Some clips that are shown together, such as those of a cluster."""

    name: str
    why: str
    """Reason why it is shown."""
    facts: str
    clips: Sequence[PageClip]


@dataclass(frozen=True)
class Section:
    """A section of a chapter."""

    heading: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[PageTable] = ()
    pictures: Sequence[Picture] = ()
    clusters: Sequence[PageCluster] = ()


@dataclass(frozen=True)
class Chapter:
    """One run, or the comparison of several."""

    heading: str
    kind: str
    """Kind of the run, such as "pre-training"; runs of one kind are compared."""
    uri: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    sections: Sequence[Section] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    """Configuration of the run, by dotted name."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Versions, machine and inputs."""


def settings(config: Mapping[str, Any]) -> dict[str, str]:
    """Convert a nested configuration to texts, by dotted name."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in flatten(config).items()
    }


def data_uri(kind: str, data: bytes) -> Markup:
    """Return ``data`` as a URI of the media type ``kind``, marked as needing no escaping."""
    return Markup(f"data:{kind};base64,{base64.b64encode(data).decode()}")


def chart(figure: Figure) -> Markup:
    """Return a figure as a data URI that is sharp at any size."""
    return data_uri("image/svg+xml", to_svg(figure))


def to_html(title: str, subtitle: str, chapters: Sequence[Chapter]) -> str:
    """Return the whole page of some runs."""
    return render("page.html.j2", title=title, subtitle=subtitle, chapters=chapters)


def render(template: str, **values: Any) -> str:
    """Render a template of this room; every text is escaped, and credentials in URIs are masked."""
    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: (
            storage.masked(value) if isinstance(value, str) and not isinstance(value, Markup) else value
        ),
    )
    return environment.get_template(template).render(values)
