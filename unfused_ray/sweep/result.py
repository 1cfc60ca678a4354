"""What a sweep has found: its best trials with intervals, the winner as a recipe, and the winner on the test split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table as RichTable

from unfused_ray import evaluation_job, storage
from unfused_ray.config import DistillConfig, EvaluateConfig, SweepConfig
from unfused_ray.evaluation import bootstrap
from unfused_ray.evaluation.bootstrap import Interval
from unfused_ray.evaluation.protocol import BootstrapConfig
from unfused_ray.evaluation.table import EvaluationTable
from unfused_ray.sweep.prepare import Prepared
from unfused_ray.sweep.score import draws
from unfused_ray.sweep.space import apply
from unfused_ray.sweep.trial import Record
from unfused_ray.training.driver.launch import train

WINNER = "winner.json"
_SHOWN = 10


@dataclass(frozen=True)
class Ranked:
    """A trial that went to its end."""

    record: Record
    accuracy: Interval
    """Mean validation accuracy."""
    difference: Interval | None
    """From the default trial, on the same clips; None for that trial, or where it did not go to its end."""


def rank(records: Sequence[Record], default: str, config: BootstrapConfig) -> list[Ranked]:
    """The trials that went to their end, best first.

    Args:
        records: of all trials.
        default: id of the default trial.
        config: of the bootstrap over groups of held-out clips.
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


def to_terminal(ranked: Sequence[Ranked], records: Sequence[Record], default: str) -> RichTable:
    """The best trials as a table; the default one is told by its id."""
    names = list(ranked[0].record.point)
    ended = {state: sum(record.state == state for record in records) for state in ("stopped early", "failed")}
    caption = (
        "Mean validation accuracy in %, with 95 % intervals over groups of held-out clips. The best of many trials is "
        f"too good: only the test split says what it is worth. {len(ranked)} trials went to their end, "
        f"{ended['stopped early']} were stopped early, {ended['failed']} failed."
    )
    table = RichTable(caption=caption, caption_justify="left")
    for heading in ("trial", *names, "accuracy", "from the default", "seconds"):
        table.add_column(heading, justify="left" if heading == "trial" else "right")
    for each in ranked[:_SHOWN]:
        point = [_short(each.record.point[name]) for name in names]
        change = each.difference.text("+") if each.difference else "the default" * (each.record.id == default)
        table.add_row(each.record.id, *point, each.accuracy.text(), change, f"{each.record.seconds:.0f}")
    return table


def winner(prepared: Prepared, best: Record) -> DistillConfig:
    """The winning settings as a recipe: whoever takes it names data and output."""
    found = apply(prepared.config.distill, best.point)
    return found.replace(name=f"{prepared.config.name}-winner")


def write_winner(prepared: Prepared, recipe: DistillConfig) -> str:
    """Keep the recipe in the sweep's folder; returns where."""
    path = storage.join(prepared.plan.uri, WINNER)
    storage.write_bytes(path, recipe.model_dump_json(indent=1).encode())
    return path


def evaluate_winner(prepared: Prepared, recipe: DistillConfig) -> EvaluationTable:
    """Train the winner anew, with another seed than it was chosen with, and read the test split once.

    Given again, what is trained is kept, and so is every cell of the table.
    """
    config: SweepConfig = prepared.config
    runs = storage.join(prepared.plan.uri, "winner", storage.sha256(recipe.model_dump_json().encode())[:10])
    for task in config.tasks:
        name = storage.name(task)
        changed = recipe.replace(
            data=(task,), output=storage.join(runs, name), name=f"{recipe.name}-{name}", seed=recipe.seed + 1
        )
        status = train(changed, parent=prepared.id)
        if status.state == "stopped":
            raise KeyboardInterrupt("stopped: the same command with --resume goes on")
        if status.state != "finished":
            raise ValueError(f"the winner on {task} is {status.state}: {status.message}")
    evaluation = evaluation_job.check(
        EvaluateConfig(
            models=(f"winner={runs}/{{task}}",),
            tasks=config.tasks,
            name=f"{config.name}-winner",
            output=storage.join(prepared.plan.uri, "table"),
            cache=storage.join(prepared.plan.uri, "embeddings"),
            protocol=config.protocol,
            random_seeds=config.random_seeds,
            tracking=recipe.tracking,
        )
    )
    table = evaluation_job.run(evaluation)
    evaluation_job.track(evaluation, table, parent=prepared.id)
    return table


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
