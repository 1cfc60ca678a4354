"""``unfused-ray sweep``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rich.console import Console

from unfused_ray import recipes
from unfused_ray.cli.parse import parse
from unfused_ray.cli.terminal import say, say_report, show

EXAMPLES = (
    "demo --tasks shards/drums --distill.teacher ~/unfused-ray/runs/demo",
    "demo --tasks shards/drums shards/languages --distill.teacher ~/unfused-ray/runs/demo --space alpha-beta-rate",
)


def run(arguments: Sequence[str]) -> int:
    """Sweep the settings of a distillation."""
    config, dry_run = parse("sweep", arguments, recipes.SWEEP, EXAMPLES)
    from unfused_ray.report.evaluation import evaluation_table
    from unfused_ray.sweeps import plan as plans
    from unfused_ray.sweeps import result, sweep

    plan = plans.check(config)
    if dry_run:
        show(plans.describe(plan))
        return 0
    found = result.conclude(plan, sweep.run(plan))
    show(found.to_terminal())
    say(f"the winner as a recipe: unfused-ray distill {shlex.quote(found.recipe_uri)} --data …")
    show(evaluation_table(result.evaluate_winner(found), Console()))
    say_report(plan.trials.uri)
    return 0
