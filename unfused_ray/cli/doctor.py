"""``unfused-ray doctor``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

import tyro

from unfused_ray import paths, recipes, storage
from unfused_ray.cli.parse import parse_function
from unfused_ray.cli.terminal import show
from unfused_ray.config import TrainingConfig

EXAMPLES = ("", "decar-v2-audioset --output s3://bucket/runs/decar-v2")


def run(arguments: Sequence[str]) -> int:
    """Examine this machine or cluster."""
    return parse_function("doctor", arguments, _doctor, EXAMPLES)


_RECIPE = "Recipe of pretrain or distill to check for; without one, the check is for one worker without a GPU."
_OUTPUT = "Folder that the run would be written to, by path or URI; empty is <home>/runs/<name>."


def _doctor(
    recipe: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="[RECIPE]", help=_RECIPE)]] = "",
    output: Annotated[str, tyro.conf.arg(help=_OUTPUT)] = "",
    num_workers: Annotated[int, tyro.conf.arg(help="Number of workers, instead of the recipe's.")] = 0,
    tracking: Annotated[str, tyro.conf.arg(help="MLflow tracking URI, instead of the recipe's.")] = "",
) -> int:
    """Examine this machine, or the cluster of RAY_ADDRESS.

    Every node writes an object beside the output folder and deletes it; nothing else is changed. The exit code is 1 if
    something is missing.
    """
    from unfused_ray import cluster
    from unfused_ray.doctor import examine

    given = {
        "runtime.num_workers": num_workers,
        "batch.blocks_per_step": num_workers,  # so that any number divides it; nothing is trained
        "tracking.uri": tracking,
        "output": output,
    }
    config = paths.resolve(_training(recipe).replace({name: value for name, value in given.items() if value}))
    with cluster.session():
        findings = examine.examine(config)
    show(examine.table(findings))
    return examine.exit_code(findings)


def _training(recipe: str) -> TrainingConfig:
    if not recipe:
        return TrainingConfig()
    known: dict[str, tuple[str, TrainingConfig]] = {**recipes.DISTILL, **recipes.PRETRAIN}
    if recipe.endswith(".json"):
        written = storage.read_bytes(storage.absolute(recipe))
        known = {**(recipes.PRETRAIN if _names_a_method(written) else recipes.DISTILL)}
    return recipes.find(known, recipe)


def _names_a_method(written: bytes) -> bool:
    """Return True for the configuration of a pre-training, which names its method; False also for text that is not
    JSON."""
    try:
        return "kind" in json.loads(written)["method"]
    except (ValueError, TypeError, KeyError):
        return False
