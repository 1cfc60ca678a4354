"""``unfused-ray compare``."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from unfused_ray import recipes
from unfused_ray.cli.parse import parse
from unfused_ray.cli.terminal import show

EXAMPLES = (
    "corpus --data-root shards",
    "tiny --data-root shards --only decar-v2 --stages train --dry-run",
)


def run(arguments: Sequence[str]) -> int:
    """Make a results table."""
    config, dry_run = parse("compare", arguments, recipes.PLANS, EXAMPLES)
    from unfused_ray.comparison import job

    plan = job.check(config)
    if config.list:
        show(plan.listing())
    elif dry_run:
        show(job.describe(plan))
    else:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # the jobs are stopped, too
        return 1 if job.run(plan) else 0
    return 0
