"""``unfused-ray distill``."""

from __future__ import annotations

from collections.abc import Sequence

from unfused_ray import api, recipes
from unfused_ray.cli.parse import parse
from unfused_ray.cli.training import run_training

EXAMPLES = (
    "demo-drums --data shards/drums --teacher ~/unfused-ray/runs/demo",
    "unfused --data shards/us8k --teacher ~/unfused-ray/runs/decar-v2-corpus --method.alpha 0.5 --name us8k",
)


def run(arguments: Sequence[str]) -> int:
    """Distil a student."""
    return run_training(*parse("distill", arguments, recipes.DISTILL, EXAMPLES), api.distill)
