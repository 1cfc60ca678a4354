"""The demo's trainings with several seeds: is each above random networks, and by how much?

    python -m benchmarks.demo [--seeds 0 … 9] [--precision bfloat16 float32] [--threads 0] [--output output/demo-seeds]

For each seed, DECAR-v2 and a student for each task are trained as ``make demo`` does. They are evaluated on the test
clips beside five random networks of each shape, and each is compared with those of its shape. The result is the
difference over the test clips of both tasks together, with its interval from a paired bootstrap over groups. Two
precisions are compared as well: accuracies in a table, loss curves in ``loss.png``. Finished parts are kept, so that
the same command resumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from unfused_ray import api, recipes
from unfused_ray.config import (
    MEAN,
    DistillConfig,
    EvaluateConfig,
    Measure,
    PrepareConfig,
    PretrainConfig,
    TrackingConfig,
)
from unfused_ray.evaluation.rows import Margin
from unfused_ray.evaluation.table import EvaluationTable
from unfused_ray.evaluation_job import job as evaluation_job
from unfused_ray.evaluation_job import plan as evaluation_plan
from unfused_ray.figures.canvas import new_figure, save
from unfused_ray.runs.reader import curves
from unfused_ray.runs.run import Run

TASKS = ("drums", "languages")
MEASURES: tuple[Measure, ...] = ("neighbours", "few-shot")
ROWS = ("DECAR-v2", "UnFuSeD student")
ROOT = Path(__file__).parents[1]


def prepare(output: Path, tasks: Sequence[str] = TASKS) -> list[str]:
    """Prepare the embedded recordings of tasks; return the folders."""
    folders = [output / "shards" / task for task in tasks]
    for task, folder in zip(tasks, folders, strict=True):
        api.prepare(PrepareConfig(source=str(ROOT / "recordings" / f"{task}.tar"), output=str(folder)))
    return list(map(str, folders))


def run(
    output: Path,
    shards: Sequence[str],
    seed: int,
    precision: str,
    threads: int,
    epochs: int = 0,
    random_seeds: int = 5,
) -> list[Margin]:
    """Train and evaluate one seed; return its margins.

    Args:
        output: folder of all seeds.
        shards: folders of both tasks; without students, of any tasks to pre-train on.
        seed: seed of all trainings.
        precision: precision of all trainings.
        threads: threads of a training; 0 takes all cores.
        epochs: epochs of a shorter pre-training without students; 0 is the demo's.
        random_seeds: number of random networks of each shape.
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
        random_seeds=random_seeds, tracking=TrackingConfig(uri="off"),
    )  # fmt: skip
    return list(evaluation_job.run(evaluation_plan.check(config)).margins)


def main() -> None:
    """Run the seeds, one after the other, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("output/demo-seeds"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--precision", nargs="+", default=["bfloat16", "float32"], choices=["bfloat16", "float32"])
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    output = options.output.resolve()
    shards = prepare(output)
    table = Table(title="above random networks, in points over all test clips")
    for heading in ("precision", "seed", *(f"{row}, {measure}" for row in ROWS for measure in MEASURES)):
        table.add_column(heading, justify="right")
    for precision in options.precision:
        for seed in options.seeds:
            found = run(output, shards, seed, precision, options.threads)
            table.add_row(
                precision, str(seed), *(each.difference[measure].text("+") for each in found for measure in MEASURES)
            )
            Console(width=150).print(table)
    if len(options.precision) == 2:
        first, second = options.precision
        Console(width=150).print(compare(output, first, second, options.seeds))
        save(draw_losses(output, options.precision, options.seeds), str(output / "loss.png"))


def compare(output: Path, first: str, second: str, seeds: Sequence[int]) -> Table:
    """Make a table of the headlines on test clips in two precisions, seed by seed."""
    table = Table(title=f"headline in %, mean of the tasks: {first}, {second} and the difference")
    for heading in ("row", "seed", first, second, "difference"):
        table.add_column(heading, justify="right")
    for name in ROWS:
        differences = []
        for seed in seeds:
            found = [_headline(output / f"{precision}-{seed}" / "demo", name) for precision in (first, second)]
            differences.append(found[0] - found[1])
            table.add_row(name, str(seed), *(f"{value:.1f}" for value in found), f"{differences[-1]:+.1f}")
        table.add_row(name, "mean", "", "", f"{fmean(differences):+.1f}", end_section=True)
    return table


def _headline(folder: Path, name: str) -> float:
    (row,) = (row for row in EvaluationTable.load(str(folder / "evaluation")).rows if row.name == name)
    return 100 * row.accuracy["headline"][MEAN].value


def draw_losses(output: Path, precisions: Sequence[str], seeds: Sequence[int]) -> Figure:
    """Draw the loss of each pre-training over its epochs, a colour for each precision."""
    figure = new_figure("DECAR-v2 in the demo: training loss, a line for each seed", 6.4, 3.4)
    axis = figure.add_subplot()
    for number, precision in enumerate(precisions):
        for seed in seeds:
            history = Run(str(output / f"{precision}-{seed}" / "demo" / "encoder")).history()
            epochs, losses = curves(history, "loss")[""]
            label = precision if seed == seeds[0] else None
            axis.plot(
                epochs, losses, color=f"C{number}", linestyle="-" if not number else "--", label=label, linewidth=1.2
            )
    axis.legend(frameon=False)
    axis.set_xlabel("epoch")
    axis.set_ylabel("loss")
    axis.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
