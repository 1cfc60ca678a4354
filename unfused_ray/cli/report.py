"""``unfused-ray report``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import tyro

from unfused_ray import storage
from unfused_ray.cli.parse import parse_function
from unfused_ray.cli.terminal import say

EXAMPLES = (
    "~/unfused-ray/runs/demo --output demo.html",
    "~/unfused-ray/runs/demo ~/unfused-ray/runs/demo-drums --clusters 3 17",
)


def run(arguments: Sequence[str]) -> int:
    """Write a page of runs."""
    return parse_function("report", arguments, _report, EXAMPLES)


_RUNS = "Folders of pre-trainings, distillations, evaluations and sweeps, by path or URI."
_CLUSTERS = "Numbers of clusters to listen to, besides those that the page chooses."


def _report(
    runs: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="RUN …", help=_RUNS)]],
    output: Annotated[str, tyro.conf.arg(help="Path or URI of the page.")] = "report.html",
    clusters: Annotated[tuple[int, ...], tyro.conf.arg(help=_CLUSTERS)] = (),
) -> int:
    """Write a page of runs.

    It needs no network: figures, tables, settings, and clusters to listen to. A page of several runs shows in which
    settings they differ.
    """
    where, uris = storage.absolute(output), [storage.absolute(run) for run in runs]
    for uri in uris:
        if not storage.is_folder(uri):
            raise FileNotFoundError(f"{uri}: there is no such folder; give folders of runs")
    from unfused_ray.report.report import write  # imported here, because drawing takes seconds to import

    size = write(uris, where, clusters)
    say(f"{where}: {size / 1e6:.1f} MB")
    return 0
