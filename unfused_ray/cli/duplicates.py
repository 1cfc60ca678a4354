"""``unfused-ray duplicates``."""

from __future__ import annotations

from collections.abc import Sequence

from unfused_ray.cli.parse import parse
from unfused_ray.cli.terminal import say, show
from unfused_ray.config import DuplicatesConfig

EXAMPLES = (
    "shards/drums --output copies.csv",
    "shards/drums --splits test --against shards/pretrain s3://bucket/shards/audioset",
)


def run(arguments: Sequence[str]) -> int:
    """Find near-copies."""
    known = {"default": ("", DuplicatesConfig())}
    config, dry_run = parse("duplicates", arguments, known, EXAMPLES, default="default", positional=("sources",))
    from unfused_ray import api
    from unfused_ray.retrieval import duplicates_job as job

    if dry_run:
        show(job.describe(job.check(config)))
        return 0
    show(api.duplicates(config).to_terminal())
    if config.output:
        say(f"all pairs: {config.output}")
    return 0
