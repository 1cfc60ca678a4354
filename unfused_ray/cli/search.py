"""``unfused-ray search``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from unfused_ray.cli.parse import parse
from unfused_ray.cli.terminal import say, show
from unfused_ray.config import SearchConfig

EXAMPLES = (
    "index query.wav --from 3.2 --to 4.1 --page hits.html",
    "index --learn marks.csv --page next.html",
)


def run(arguments: Sequence[str]) -> int:
    """Search an index."""
    known = {"default": ("", SearchConfig())}
    config, dry_run = parse("search", arguments, known, EXAMPLES, default="default", positional=("index", "query"))
    from unfused_ray import api
    from unfused_ray.retrieval import search

    if dry_run:
        show(search.describe(search.check(config)))
        return 0
    found = api.search(config)
    if config.format == "table":
        show(found.to_terminal())
    else:
        sys.stdout.write(found.to_csv() if config.format == "csv" else f"{found.to_json()}\n")
    if config.page and config.format == "table":
        say(f"a page to listen to: {config.page}")
    return 0
