"""``python -m unfused_ray runs [FOLDER]``: what there is; ``… report RUN…``: a page to look at and to listen to;
``… tasks``: the tasks of the LAPE benchmark; ``… doctor [RECIPE]``: whether everything is there that a run needs."""

from __future__ import annotations

import os

import tyro
from rich.console import Console

from unfused_ray import recipes, storage
from unfused_ray.cli import main
from unfused_ray.config import TrainingConfig
from unfused_ray.data.sources.lape.overview import overview
from unfused_ray.data.sources.lape.registry import ROOT
from unfused_ray.home import home
from unfused_ray.report.terminal import runs_table


def runs(folder: tyro.conf.Positional[str] = "") -> int:
    """List runs: name, state, position, last checkpoint.

    Args:
        folder: where the runs are, by path or URI; <home>/runs by default.
    """
    Console().print(runs_table(storage.absolute(folder) if folder else storage.join(home(), "runs")))
    return 0


def report(
    runs: tyro.conf.Positional[tuple[str, ...]], output: str = "report.html", clusters: tuple[int, ...] = ()
) -> int:
    """Write one HTML page of runs that needs no network: figures, tables, settings, and their clusters to listen to.

    Args:
        runs: folders of pre-trainings, distillations, evaluations and sweeps, by path or URI; of several, the page
            shows in what their settings differ.
        output: where the page goes, by path or URI.
        clusters: numbers of clusters to listen to, besides those that the page chooses itself; every run that has
            clusters must have them.
    """
    from unfused_ray.report.report import write  # here: matplotlib and torch, which the list of runs need not wait for

    where = storage.absolute(output)
    size = write([storage.absolute(run) for run in runs], where, clusters)
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


def doctor(
    recipe: tyro.conf.Positional[str] = "",
    output: str = "",
    num_workers: int = 0,
    tracking: str = "",
) -> int:
    """Look for what a training needs, here or on the cluster of RAY_ADDRESS; ends with 1 where something is missing.

    Every node writes an object beside the output folder, and deletes it; nothing else is changed.

    Args:
        recipe: of jobs/pretrain.py or jobs/distill.py, whose request is compared with what there is; none asks for one
            worker without a GPU.
        output: folder that runs would be written to, by path or URI; <home>/runs by default.
        num_workers: instead of the recipe's.
        tracking: MLflow tracking URI, instead of the recipe's.
    """
    from unfused_ray import cluster  # here: Ray, which the other commands need not wait for
    from unfused_ray.doctor import examine

    config = _training(recipe)
    given = {
        "runtime.num_workers": num_workers,
        "batch.blocks_per_step": num_workers,  # so that any number divides it: nothing is trained
        "tracking.uri": tracking,
        "output": storage.absolute(output) if output else "",
    }
    config = config.replace({field: value for field, value in given.items() if value})
    with cluster.session():
        findings = examine.examine(config)
    Console().print(examine.table(findings))
    return examine.exit_code(findings)


def _training(recipe: str) -> TrainingConfig:
    known: dict[str, TrainingConfig] = {name: config for name, (_, config) in recipes.DISTILL.items()}
    known |= {name: config for name, (_, config) in recipes.PRETRAIN.items()}
    if recipe and recipe not in known:
        raise ValueError(f"{recipe} is no recipe: name one of {', '.join(known)}, or none")
    return known[recipe] if recipe else TrainingConfig()


if __name__ == "__main__":
    main(
        lambda: tyro.extras.subcommand_cli_from_dict(
            {"runs": runs, "report": report, "tasks": tasks, "doctor": doctor}, prog="python -m unfused_ray"
        )
    )
