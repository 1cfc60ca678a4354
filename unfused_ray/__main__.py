"""``python -m unfused_ray runs [FOLDER]``: what there is and how it stands; ``… tasks``: those of the LAPE benchmark."""

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
        lambda: tyro.extras.subcommand_cli_from_dict({"runs": runs, "tasks": tasks}, prog="python -m unfused_ray")
    )
