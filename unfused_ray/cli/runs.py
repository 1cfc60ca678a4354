"""``unfused-ray runs``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import tyro

from unfused_ray import storage
from unfused_ray.cli.parse import parse_function
from unfused_ray.cli.terminal import show

EXAMPLES = ("", "s3://bucket/runs")


def run(arguments: Sequence[str]) -> int:
    """List the runs of a folder."""
    return parse_function("runs", arguments, _runs, EXAMPLES)


_FOLDER = (
    "Folder that holds the runs, by path or URI; empty is <home>/runs, where <home> is the environment variable "
    "UNFUSED_RAY_HOME or ~/unfused-ray."
)


def _runs(folder: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="[FOLDER]", help=_FOLDER)]] = "") -> int:
    """List the runs of a folder."""
    from unfused_ray.home import home
    from unfused_ray.report.terminal import runs_table

    uri = storage.absolute(folder) if folder else storage.join(home(), "runs")
    if folder and not storage.is_folder(uri):
        raise FileNotFoundError(f"{uri}: there is no such folder; give the folder that holds those of the runs")
    show(runs_table(uri))
    return 0
