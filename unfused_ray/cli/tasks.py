"""``unfused-ray tasks``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated

import tyro

from unfused_ray.cli.parse import parse_function
from unfused_ray.cli.terminal import show

EXAMPLES = ("", "--root ~/data")


def run(arguments: Sequence[str]) -> int:
    """List the LAPE tasks."""
    return parse_function("tasks", arguments, _tasks, EXAMPLES)


_ROOT = "Folder that holds the data sets, by path or URI; empty is the environment variable UNFUSED_RAY_DATA."


def _tasks(root: Annotated[str, tyro.conf.arg(help=_ROOT)] = "") -> int:
    """List the LAPE tasks.

    The table has classes, clips, hours, licence and address of each data set, and how much of it is on this disk.
    """
    from unfused_ray import storage
    from unfused_ray.data.sources.lape.overview import overview
    from unfused_ray.data.sources.lape.registry import ROOT

    root = root or os.environ.get(ROOT, "")
    show(overview(storage.absolute(root) if root else ""))
    return 0
