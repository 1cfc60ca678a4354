"""``unfused-ray pretrain``."""

from __future__ import annotations

from collections.abc import Sequence

from unfused_ray import api, recipes
from unfused_ray.cli.parse import parse
from unfused_ray.cli.training import run_training

EXAMPLES = (
    "demo --data shards/drums shards/languages",
    "decar-v2-audioset --data s3://bucket/audioset --output s3://bucket/runs/decar-v2 --dry-run",
)


def run(arguments: Sequence[str]) -> int:
    """Pre-train an encoder."""
    return run_training(*parse("pretrain", arguments, recipes.PRETRAIN, EXAMPLES), api.pretrain)
