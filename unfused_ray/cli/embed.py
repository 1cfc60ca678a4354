"""``unfused-ray embed``."""

from __future__ import annotations

from collections.abc import Sequence

from unfused_ray import recipes
from unfused_ray.cli.parse import parse
from unfused_ray.cli.terminal import show

EXAMPLES = (
    "--encoder ~/unfused-ray/runs/demo --source recordings/drums.tar --output vectors/drums",
    "windows --encoder ~/unfused-ray/runs/demo --source s3://bucket/recordings --output s3://bucket/vectors",
)


def run(arguments: Sequence[str]) -> int:
    """Embed a source."""
    config, dry_run = parse("embed", arguments, recipes.EMBED, EXAMPLES, default="default")
    from unfused_ray import api
    from unfused_ray.embedding import job

    if dry_run:
        show(job.describe(job.check(config)))
    else:
        show(job.describe_manifest(api.embed(config)))
    return 0
