"""``unfused-ray index``."""

from __future__ import annotations

from collections.abc import Sequence

from unfused_ray import recipes
from unfused_ray.cli.parse import parse
from unfused_ray.cli.terminal import show

EXAMPLES = (
    "--vectors vectors/drums vectors/languages --output index",
    "--add s3://bucket/vectors/2026 --output s3://bucket/index",
)


def run(arguments: Sequence[str]) -> int:
    """Index vectors."""
    config, dry_run = parse("index", arguments, recipes.INDEX, EXAMPLES, default="default")
    from unfused_ray import api
    from unfused_ray.retrieval import plan

    if dry_run:
        show(plan.describe(plan.check(config)))
    else:
        show(plan.describe_manifest(api.index(config)))
    return 0
