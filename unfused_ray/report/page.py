"""What a page holds, whatever the runs are of, and how it becomes one HTML file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unfused_ray import storage
from unfused_ray.config import flatten


@dataclass(frozen=True)
class Picture:
    """A drawing."""

    heading: str
    alt: str
    """What it shows, in words."""
    source: str
    """A data URI."""
    note: str = ""
    width: Literal["third", "half", "two-thirds", "full"] = "third"
    """Of the page, where it is a wide one."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str
    value: float | None = None
    """What it is sorted by, where that is not its text."""
    detail: str = ""
    """A second line, such as an interval."""


@dataclass(frozen=True)
class Table:
    """A table that readers sort by any of its columns."""

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    """The first cell of a row is its name."""
    note: str = ""


@dataclass(frozen=True)
class Clip:
    """A clip to listen to."""

    place: str
    """Why it is shown, such as "nearest to the centroid"."""
    key: str
    """The source's own name of it."""
    facts: str
    audio: str
    """A data URI."""
    spectrogram: str
    """A data URI."""
    seconds: float
    """Of the audio."""


@dataclass(frozen=True)
class Cluster:
    """Some clips of one cluster."""

    name: str
    why: str
    """Why it is among those shown."""
    facts: str
    clips: Sequence[Clip]


@dataclass(frozen=True)
class Section:
    """A part of a chapter."""

    heading: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    clusters: Sequence[Cluster] = ()


@dataclass(frozen=True)
class Chapter:
    """One run, or what several have in common."""

    heading: str
    kind: str
    """Such as "pre-training"; runs of one kind are compared."""
    uri: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    sections: Sequence[Section] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    """Its configuration, by dotted names."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What it was made of and with."""


def settings(config: Mapping[str, Any]) -> dict[str, str]:
    """A nested configuration as texts by dotted names."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in flatten(config).items()
    }


def to_html(title: str, subtitle: str, chapters: Sequence[Chapter]) -> str:
    """The whole page; every text is escaped, and its URIs' credentials are masked."""
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
    return environment.get_template("page.html.j2").render(title=title, subtitle=subtitle, chapters=chapters)
