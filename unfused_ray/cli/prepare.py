"""``unfused-ray prepare``."""

from __future__ import annotations

from collections.abc import Sequence

from unfused_ray import recipes
from unfused_ray.cli.parse import parse
from unfused_ray.cli.terminal import show

EXAMPLES = (
    "--source recordings/drums.tar --output shards/drums",
    "--task us8k --root ~/data --output s3://bucket/shards/us8k",
)


def run(arguments: Sequence[str]) -> int:
    """Prepare a source."""
    config, dry_run = parse("prepare", arguments, recipes.PREPARE, EXAMPLES, default="default")
    from unfused_ray import api
    from unfused_ray.data.shards import ingest

    if dry_run:
        show(ingest.describe(ingest.check(config)))
    else:
        show(ingest.describe_manifest(api.prepare(config)))
    return 0
