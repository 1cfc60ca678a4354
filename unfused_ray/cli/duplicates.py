"""``unfused-ray duplicates``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import tyro

from unfused_ray.cli.parse import parse_function
from unfused_ray.cli.terminal import say, show

EXAMPLES = (
    "shards/drums --output copies.csv",
    "shards/drums --splits test --against shards/pretrain s3://bucket/shards/audioset",
)


def run(arguments: Sequence[str]) -> int:
    """Find near-copies."""
    return parse_function("duplicates", arguments, _duplicates, EXAMPLES)


_SOURCES = "Folders written by unfused-ray prepare, by path or URI."
_AGAINST = "Prepared sources to look among; none named looks among the first ones, but not at a clip itself."
_PRECISION = "Share of right pairs that the threshold must have on copies that are made."
_OUTPUT = "Path or URI of a CSV file of all pairs."


def _duplicates(
    sources: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="SOURCE …", help=_SOURCES)]],
    splits: Annotated[tuple[str, ...], tyro.conf.arg(help="Ask about these splits alone.")] = (),
    against: Annotated[tuple[str, ...], tyro.conf.arg(help=_AGAINST)] = (),
    against_splits: Annotated[tuple[str, ...], tyro.conf.arg(help="Look among these splits of them alone.")] = (),
    precision: Annotated[float, tyro.conf.arg(help=_PRECISION)] = 0.999,
    output: Annotated[str, tyro.conf.arg(help=_OUTPUT)] = "",
) -> int:
    """Find near-copies within prepared sources, and between them and others.

    Near-copies are the same recording at another level, through a codec, a filter or another rate, in noise, or with
    its edges cut off. No encoder is needed: clips are compared by how their bands change over time. The threshold is
    the lowest at which copies that are made of some clips are told from other clips; what it finds of each kind is
    shown.
    """
    from unfused_ray import api, storage

    found = api.duplicates(sources, against, splits=splits, against_splits=against_splits, precision=precision)
    show(found.to_terminal())
    if output:
        storage.write_bytes(storage.absolute(output), found.to_csv().encode())
        say(f"all pairs: {output}")
    return 0
