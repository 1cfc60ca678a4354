"""Concludes a sweep: its best trials with intervals, the winner as a recipe, and the winner on the test split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table as RichTable

from unfused_ray import storage
from unfused_ray.config import DistillConfig, EvaluateConfig, Measure
from unfused_ray.evaluation import bootstrap
from unfused_ray.evaluation.bootstrap import Interval
from unfused_ray.evaluation.protocol import BootstrapConfig
from unfused_ray.evaluation.table import EvaluationTable
from unfused_ray.evaluation_job import job as evaluation_job
from unfused_ray.evaluation_job import plan as evaluation_plan
from unfused_ray.evaluation_job import tracked as evaluation_tracked
from unfused_ray.sweeps.plan import SweepPlan
from unfused_ray.sweeps.score import draws
from unfused_ray.sweeps.space import apply, identity
from unfused_ray.sweeps.trial import Record
from unfused_ray.training.driver import launch

WINNER = "winner.json"
_SHOWN = 10


@dataclass(frozen=True)
class Ranked:
    """A trial that ran to its end."""

    record: Record
    accuracy: Interval
    """Mean score on validation clips."""
    difference: Interval | None
    """Difference from the default trial on the same clips; None for that trial, or if that did not run to its end."""


def rank(records: Sequence[Record], default: str, config: BootstrapConfig) -> list[Ranked]:
    """Rank the trials that ran to their end, best first.

    Args:
        records: records of all trials.
        default: id of the default trial.
        config: settings of the bootstrap over groups of held-out clips.
    """
    finished = sorted((r for r in records if r.state == "finished"), key=lambda record: -record.accuracy)
    drawn = {record.id: draws(record.rungs[-1].scores, config) for record in finished}
    values = {record.id: record.accuracy for record in finished}

    def difference(name: str) -> Interval | None:
        if name == default or default not in drawn:
            return None
        return bootstrap.difference(values[name], drawn[name], values[default], drawn[default])

    return [
        Ranked(record, bootstrap.interval(record.accuracy, drawn[record.id]), difference(record.id))
        for record in finished
    ]


@dataclass(frozen=True)
class SweepResult:
    """A sweep whose trials have ended."""

    plan: SweepPlan
    records: Sequence[Record]
    """Records of all trials."""
    ranked: Sequence[Ranked]
    """Trials that ran to their end, best first."""
    recipe: DistillConfig
    """The winning settings, without data and output."""
    recipe_uri: str
    table: EvaluationTable | None = None
    """The winner on the test split, once :func:`evaluate_winner` has read it."""

    def to_terminal(self) -> RichTable:
        """Return the best trials, and the default one, as a table."""
        return to_terminal(self.ranked, self.records, identity(self.plan.default), self.plan.config.score)


def conclude(plan: SweepPlan, records: Sequence[Record]) -> SweepResult:
    """Rank the trials and write the winner as a recipe to the sweep's folder.

    Raises:
        ValueError: no trial ran to its end.
    """
    ranked = rank(records, identity(plan.default), plan.trials.protocol.bootstrap)
    if not ranked:
        raise ValueError(f"no trial of {plan.trials.uri} was trained to its end: see the warnings above")
    best = apply(plan.config.distill, ranked[0].record.point)
    recipe = best.replace(name=f"{plan.config.name}-winner")
    path = storage.join(plan.trials.uri, WINNER)
    storage.write_bytes(path, recipe.model_dump_json(indent=1).encode())
    return SweepResult(plan, records, ranked, recipe, path)


def to_terminal(ranked: Sequence[Ranked], records: Sequence[Record], default: str, measure: Measure) -> RichTable:
    """Return the best trials, and the default one, given by its id, as a table."""
    shown = [each for place, each in enumerate(ranked) if place < _SHOWN or each.record.id == default]
    names = list(ranked[0].record.point)
    ended = {state: sum(record.state == state for record in records) for state in ("stopped early", "failed")}
    caption = (
        f"Mean {measure} on validation clips in %, with 95 % intervals over groups of held-out clips. The best of many "
        f"trials looks too good: only the test split shows its worth. {len(ranked)} trials were trained to their end"
        + (f", of which the {_SHOWN} best and the default are shown" if len(shown) < len(ranked) else "")
        + f"; {ended['stopped early']} were stopped early, {ended['failed']} failed."
    )
    table = RichTable(caption=caption, caption_justify="left")
    for heading in ("trial", *names, "accuracy", "from the default", "seconds"):
        table.add_column(heading, justify="left" if heading == "trial" else "right", overflow="fold")
    for each in shown:
        point = [short(each.record.point[name]) for name in names]
        change = each.difference.text("+") if each.difference else "the default" * (each.record.id == default)
        table.add_row(each.record.id, *point, each.accuracy.text(), change, f"{each.record.seconds:.0f}")
    return table


def evaluate_winner(result: SweepResult) -> EvaluationTable:
    """Train the winner again, with another seed than it was chosen with, and read the test split once.

    If the command is repeated, finished trainings and cells of the table are kept.
    """
    plan, recipe, config = result.plan, result.recipe, result.plan.config
    uri = plan.trials.uri
    runs = storage.join(uri, "winner", storage.sha256(recipe.model_dump_json().encode())[:10])
    for task in config.tasks:
        name = storage.name(task)
        changes = {"data": (task,), "output": storage.join(runs, name), "name": f"{recipe.name}-{name}"}
        training = launch.check(recipe.replace(changes, seed=recipe.seed + 1))
        status = launch.run(training, parent=plan.id)
        if status.state == "stopped":
            raise KeyboardInterrupt("stopped: the same command with --resume resumes it")
        if status.state != "finished":
            raise ValueError(f"the winner on {task} is {status.state}: {status.message}")
    evaluation = evaluation_plan.check(
        EvaluateConfig(
            models=(f"winner={runs}/{{task}}",),
            tasks=config.tasks,
            name=f"{config.name}-winner",
            output=storage.join(uri, "table"),
            cache=storage.join(uri, "embeddings"),
            protocol=config.protocol,
            random_seeds=config.random_seeds,
            shared_clips=config.shared_clips,
            tracking=recipe.tracking,
        )
    )
    table = evaluation_job.run(evaluation)
    evaluation_tracked.track(evaluation, table, parent=plan.id)
    return table


def short(value: object) -> str:
    """Return a value of a point as text, numbers to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
