"""``unfused-ray search``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Literal

import tyro

from unfused_ray.cli.parse import parse_function
from unfused_ray.cli.terminal import say, show

EXAMPLES = (
    "index query.wav --from 3.2 --to 4.1 --page hits.html",
    "index --learn marks.csv --page next.html",
)


def run(arguments: Sequence[str]) -> int:
    """Search an index."""
    return parse_function("search", arguments, _search, EXAMPLES)


_FORMATS = "Print a table, or CSV with a column for marks, or JSON."
_INDEX = "Folder written by unfused-ray index, by path or URI."
_QUERY = "File of audio, by path or URI."
_FROM = "Second of the file or clip that the question begins at."
_TO = "Second that it ends at; the end of the file if none is named."
_KEY = "Ask for what sounds like this clip of the index."
_KEY_SOURCE = "Source of the key, where several have it."
_LABEL = "Ask for what sounds like the clips of this label, and does not carry it."
_LEARN = "CSV of marks: ask for what a classifier of them would keep, and for the clips that it is least sure of."
_ENCODER = "Encoder of the file; by default the one that the vectors were made with, where it was."
_PAGE = "Path or URI of a page to write, to listen to the hits and to mark them."


def _search(
    index: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="INDEX", help=_INDEX)]],
    query: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="[QUERY]", help=_QUERY)]] = "",
    first: Annotated[float, tyro.conf.arg(name="from", help=_FROM)] = 0.0,
    last: Annotated[float | None, tyro.conf.arg(name="to", help=_TO)] = None,
    key: Annotated[str, tyro.conf.arg(help=_KEY)] = "",
    key_source: Annotated[str, tyro.conf.arg(help=_KEY_SOURCE)] = "",
    label: Annotated[str, tyro.conf.arg(help=_LABEL)] = "",
    learn: Annotated[str, tyro.conf.arg(help=_LEARN)] = "",
    count: Annotated[int, tyro.conf.arg(help="Recordings to find.")] = 20,
    splits: Annotated[tuple[str, ...], tyro.conf.arg(help="Find clips of these splits alone.")] = (),
    labels: Annotated[tuple[str, ...], tyro.conf.arg(help="Find clips with one of these labels alone.")] = (),
    sources: Annotated[tuple[str, ...], tyro.conf.arg(help="Find clips of these sources alone.")] = (),
    min_seconds: Annotated[float, tyro.conf.arg(help="Find clips or windows of at least this length alone.")] = 0.0,
    max_seconds: Annotated[float | None, tyro.conf.arg(help="Find those of at most this length alone.")] = None,
    encoder: Annotated[str, tyro.conf.arg(help=_ENCODER)] = "",
    format: Annotated[Literal["table", "csv", "json"], tyro.conf.arg(help=_FORMATS)] = "table",
    page: Annotated[str, tyro.conf.arg(help=_PAGE)] = "",
) -> int:
    """Search an index.

    One hit a recording, the nearest first, and never the question itself. The page plays the hits, links into their
    recordings, and saves what you keep and reject as CSV, which --learn reads.
    """
    from unfused_ray import api

    found = api.search(
        index,
        query,
        first=first,
        last=last,
        key=key,
        key_source=key_source,
        label=label,
        learn=learn,
        count=count,
        splits=splits,
        labels=labels,
        sources=sources,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        encoder=encoder,
        page=page,
    )
    if format == "table":
        show(found.to_terminal())
    else:
        sys.stdout.write(found.to_csv() if format == "csv" else f"{found.to_json()}\n")
    if page and format == "table":
        say(f"a page to listen to: {page}")
    return 0
