"""``python -m unfused_ray runs [FOLDER]``: what there is and how it stands."""

from __future__ import annotations

import tyro
from rich.console import Console

from unfused_ray import storage
from unfused_ray.cli import main
from unfused_ray.evaluation.summary import runs_table
from unfused_ray.training.run import home


def runs(folder: tyro.conf.Positional[str] = "") -> int:
    """List runs: name, state, position, last checkpoint.

    Args:
        folder: where the runs are, by path or URI; <home>/runs by default.
    """
    Console().print(runs_table(storage.absolute(folder) if folder else storage.join(home(), "runs")))
    return 0


if __name__ == "__main__":
    main(lambda: tyro.extras.subcommand_cli_from_dict({"runs": runs}, prog="python -m unfused_ray"))
