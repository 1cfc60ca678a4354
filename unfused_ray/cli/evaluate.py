"""``unfused-ray evaluate``."""

from __future__ import annotations

from collections.abc import Sequence

from unfused_ray import recipes, storage
from unfused_ray.cli.parse import parse
from unfused_ray.cli.terminal import say, say_report, show
from unfused_ray.progress import plain_console

EXAMPLES = (
    "--tasks shards/drums --models ~/unfused-ray/runs/demo",
    "--tasks shards/drums shards/languages --models 'student=~/unfused-ray/runs/demo-{task}' --name demo",
)


def run(arguments: Sequence[str]) -> int:
    """Evaluate encoders."""
    config, dry_run = parse("evaluate", arguments, recipes.EVALUATE, EXAMPLES, default="default")
    from unfused_ray import api
    from unfused_ray.evaluation_job import job as evaluation_job
    from unfused_ray.evaluation_job import plan as evaluation_plan
    from unfused_ray.figures.nearest import PICTURE
    from unfused_ray.report.evaluation import evaluation_table

    if dry_run:
        show(evaluation_plan.describe(evaluation_plan.check(config)))
        return 0
    evaluated = api.evaluate(config)
    show(evaluation_table(evaluated.table, plain_console()))
    say(f"table, figures and pictures: {evaluated.folder}")
    say(f"nearest clips, by a random network and the first models: {evaluated.folder}/*/{PICTURE}")
    if storage.exists(watched := storage.join(evaluated.folder, evaluation_job.WATCHED)):
        say(f"validation scores over the epochs, beside random networks: {watched}")
    say_report(evaluated.folder)
    return 0
