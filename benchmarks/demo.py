"""The demo's trainings with several seeds: is each above random networks, and by how much?

    python -m benchmarks.demo [--seeds 10] [--precision bfloat16 float32] [--threads 0] [--output output/demo-seeds]

For each seed, DECAR-v2 and a student for each task are trained as ``make demo`` does, evaluated on the test clips
beside five random networks of each shape, and compared with those of their shape: the difference over the test clips of
both tasks together, with its interval from a paired bootstrap over groups. What is finished is kept: the same command
resumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from unfused_ray import api, evaluation_job, recipes
from unfused_ray.config import DistillConfig, EvaluateConfig, Measure, PrepareConfig, PretrainConfig, TrackingConfig
from unfused_ray.evaluation import bootstrap, cells
from unfused_ray.evaluation.bootstrap import Interval
from unfused_ray.evaluation.cells import Cell
from unfused_ray.evaluation.tasks import Task
from unfused_ray.evaluation_job import EvaluationPlan

TASKS = ("drums", "languages")
MEASURES: tuple[Measure, ...] = ("neighbours", "few-shot")
PAIRS = {"DECAR-v2": "random fc2 (32 × 512)", "UnFuSeD student": "random fc1 (32 × 512)"}
"""Rows, and the random networks of their shape."""
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Margin:
    """A trained row above random networks of its shape, over the test clips of both tasks."""

    row: str
    measure: Measure
    difference: Interval


def prepare(output: Path) -> list[str]:
    """Prepare the embedded recordings; their folders."""
    folders = [output / "shards" / task for task in TASKS]
    for task, folder in zip(TASKS, folders, strict=True):
        api.prepare(PrepareConfig(source=str(ROOT / "recordings" / f"{task}.tar"), output=str(folder)))
    return list(map(str, folders))


def run(output: Path, shards: Sequence[str], seed: int, precision: str, threads: int, epochs: int = 0) -> list[Margin]:
    """Train and evaluate one seed; its margins.

    Args:
        output: folder of all seeds.
        shards: folders of both tasks.
        seed: of all trainings.
        precision: of all trainings.
        threads: of a training; 0 takes all cores.
        epochs: of the pre-training, for a shorter one without students; 0 is the demo's.
    """
    folder = output / f"{precision}-{seed}" / (f"{epochs}-epochs" if epochs else "demo")
    common = {
        "seed": seed,
        "tracking.uri": "off",
        "runtime.kind": "in-process",
        "runtime.precision": precision,
        "runtime.threads": threads,
    }
    encoder, models = folder / "encoder", [f"DECAR-v2={folder / 'encoder'}"]
    settings = {"data": tuple(shards), "output": str(encoder), **({"epochs": epochs} if epochs else {})}
    api.pretrain(PretrainConfig.model_validate(recipes.recipe("pretrain/demo", common | settings)))
    if not epochs:
        for task, shard in zip(TASKS, shards, strict=True):
            own = {"data": (shard,), "teacher": str(encoder), "output": str(folder / f"student-{task}")}
            api.distill(DistillConfig.model_validate(recipes.recipe(f"distill/demo-{task}", common | own)))
        models.append(f"UnFuSeD student={folder}/student-{{task}}")
    config = EvaluateConfig(
        tasks=tuple(shards), models=tuple(models), output=str(folder / "evaluation"), cache=str(output / "embeddings"),
        random_seeds=5, tracking=TrackingConfig(uri="off"),
    )  # fmt: skip
    plan = evaluation_job.check(config)
    evaluation_job.run(plan)
    return margins(plan)


def margins(plan: EvaluationPlan) -> list[Margin]:
    """The margins of the trained rows of an evaluation that is finished."""
    found = {
        (system.name, task.name): cell
        for task in plan.tasks
        for system in plan.systems
        if (cell := cells.read(plan.output, task, system, plan.protocol)) is not None
    }
    rows = [system.name for system in plan.systems if system.name in PAIRS]
    return [
        Margin(row, measure, _difference(plan, found, row, PAIRS[row], measure)) for row in rows for measure in MEASURES
    ]


def _difference(
    plan: EvaluationPlan, found: dict[tuple[str, str], Cell], first: str, second: str, measure: Measure
) -> Interval:
    """Difference of two rows over all test clips, each clip of the same weight."""
    config, drawn, values = plan.protocol.config.bootstrap, [], []
    scores = {
        row: np.concatenate([found[row, task.name].scores[measure].mean(axis=0) for task in plan.tasks])
        for row in (first, second)
    }
    groups = np.concatenate([_groups(task) for task in plan.tasks])
    for row in (first, second):
        drawn.append(
            bootstrap.deviations(scores[row][None], groups, config.replicates, config.seed, "all test clips").accuracies
        )
        values.append(float(scores[row].mean()))
    return bootstrap.difference(values[0], drawn[0], values[1], drawn[1])


def _groups(task: Task) -> np.ndarray:
    """Groups of the test clips, distinct from those of another task; "" stays a group of its own."""
    groups_T = task.groups[task.tested]
    return np.where(groups_T == "", "", np.char.add(f"{task.name} ", groups_T))


def main() -> None:
    """Run the seeds, one after the other, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("output/demo-seeds"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--precision", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    output = options.output.resolve()
    shards = prepare(output)
    table = Table(title="above random networks, in points over all test clips")
    for heading in ("precision", "seed", *(f"{row}, {measure}" for row in PAIRS for measure in MEASURES)):
        table.add_column(heading, justify="right")
    for precision in options.precision:
        for seed in range(options.seeds):
            found = run(output, shards, seed, precision, options.threads)
            table.add_row(precision, str(seed), *(each.difference.text("+") for each in found))
            Console(width=150).print(table)


if __name__ == "__main__":
    main()
