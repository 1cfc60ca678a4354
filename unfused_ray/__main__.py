"""``python -m unfused_ray runs [FOLDER]``: what there is; ``… report RUN…``: a page to look at and to listen to;
``… tasks``: the tasks of the LAPE benchmark."""

from __future__ import annotations

import os

import tyro
from rich.console import Console

from unfused_ray import storage
from unfused_ray.cli import main
from unfused_ray.data.lape.overview import overview
from unfused_ray.data.lape.registry import ROOT
from unfused_ray.evaluation.summary import runs_table
from unfused_ray.training.run import home


def runs(folder: tyro.conf.Positional[str] = "") -> int:
    """List runs: name, state, position, last checkpoint.

    Args:
        folder: where the runs are, by path or URI; <home>/runs by default.
    """
    Console().print(runs_table(storage.absolute(folder) if folder else storage.join(home(), "runs")))
    return 0


def report(runs: tyro.conf.Positional[tuple[str, ...]], output: str = "report.html") -> int:
    """Write one HTML page of runs that needs no network: figures, tables, settings, and their clusters to listen to.

    Args:
        runs: folders of pre-trainings, distillations, evaluations and sweeps, by path or URI; of several, the page
            shows in what their settings differ.
        output: where the page goes, by path or URI.
    """
    from unfused_ray.report.report import write  # here: matplotlib and torch, which the list of runs need not wait for

    where = storage.absolute(output)
    size = write([storage.absolute(run) for run in runs], where)
    Console().print(f"{where}: {size / 1e6:.1f} MB", soft_wrap=True, highlight=False, markup=False)
    return 0


def tasks(root: str = "") -> int:
    """List the LAPE tasks: classes, clips, hours, licence, from where to get them, and what is found on this disk.

    Args:
        root: folder that holds the data sets, by path or URI; by default the environment variable UNFUSED_RAY_DATA.
    """
    root = root or os.environ.get(ROOT, "")
    Console().print(overview(storage.absolute(root) if root else ""))
    return 0


if __name__ == "__main__":
    main(
        lambda: tyro.extras.subcommand_cli_from_dict(
            {"runs": runs, "report": report, "tasks": tasks}, prog="python -m unfused_ray"
        )
    )
