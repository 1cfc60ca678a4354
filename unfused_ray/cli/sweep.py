"""``unfused-ray sweep``."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence

from unfused_ray import api, recipes
from unfused_ray.cli.parse import parse
from unfused_ray.cli.terminal import say, say_report, show
from unfused_ray.progress import plain_console

logger = logging.getLogger(__name__)

EXAMPLES = (
    "demo --tasks shards/drums --distill.teacher ~/unfused-ray/runs/demo",
    "demo --tasks shards/drums shards/languages --distill.teacher ~/unfused-ray/runs/demo --space alpha-beta-rate",
)


def run(arguments: Sequence[str]) -> int:
    """Sweep the settings of a distillation."""
    config, dry_run = parse("sweep", arguments, recipes.SWEEP, EXAMPLES)
    from unfused_ray.report.evaluation import evaluation_table
    from unfused_ray.sweeps import plan
    from unfused_ray.sweeps.trial import LostTrialError

    if dry_run:
        show(plan.describe(plan.check(config)))
        return 0
    try:
        found = api.sweep(config)
    except LostTrialError as error:
        logger.error("%s", error)
        return 1
    show(found.to_terminal())
    say(f"the winner as a recipe: unfused-ray distill {shlex.quote(found.recipe_uri)} --data …")
    if found.table:
        show(evaluation_table(found.table, plain_console()))
    say_report(found.plan.trials.uri)
    return 0
