"""``unfused-ray export``."""

from __future__ import annotations

from collections.abc import Sequence

from unfused_ray import recipes
from unfused_ray.cli.parse import parse
from unfused_ray.cli.terminal import show

EXAMPLES = (
    "~/unfused-ray/runs/demo-drums --to onnx --int8",
    "~/unfused-ray/runs/demo-drums --to hub --licence apache-2.0 --evaluation ~/unfused-ray/evaluations/demo",
)


def run(arguments: Sequence[str]) -> int:
    """Export an encoder."""
    config, dry_run = parse("export", arguments, recipes.EXPORT, EXAMPLES, default="default", positional=("encoder",))
    from unfused_ray import api
    from unfused_ray.exports import job

    if dry_run:
        show(job.describe(job.check(config)))
    else:
        show(job.describe_result(api.export(config)))
    return 0
