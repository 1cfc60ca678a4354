"""``unfused-ray compare``."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from unfused_ray import recipes
from unfused_ray.cli.parse import parse
from unfused_ray.cli.terminal import say, show

EXAMPLES = (
    "corpus --data-root shards",
    "corpus --data-root shards --seeds 0 --stages train validate",
)


def run(arguments: Sequence[str]) -> int:
    """Make a results table."""
    config, dry_run = parse("compare", arguments, recipes.PLANS, EXAMPLES)
    from unfused_ray import api
    from unfused_ray.comparison import page, plan, validation

    if config.list:
        show(plan.check(config).listing())
        return 0
    if dry_run:
        show(plan.describe(plan.check(config)))
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the jobs are stopped too
    compared = api.compare(config)
    if compared.validation:
        say(f"\n{compared.validation.to_markdown()}\n{validation.MARKDOWN}: {compared.folder}")
    if compared.table:
        say(f"\n{page.to_markdown(compared.table)}\n{', '.join(page.FILES)}: {compared.folder}")
    if compared.against:
        say(f"\n{page.differences(compared.against)}")
    return 1 if compared.num_failed else 0
