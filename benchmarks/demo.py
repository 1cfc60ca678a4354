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
from pathlib import Path

from rich.console import Console
from rich.table import Table

from unfused_ray import api, evaluation_job, recipes
from unfused_ray.config import DistillConfig, EvaluateConfig, Measure, PrepareConfig, PretrainConfig, TrackingConfig
from unfused_ray.evaluation.rows import Margin

TASKS = ("drums", "languages")
MEASURES: tuple[Measure, ...] = ("neighbours", "few-shot")
ROWS = ("DECAR-v2", "UnFuSeD student")
ROOT = Path(__file__).parents[1]


def prepare(output: Path, tasks: Sequence[str] = TASKS) -> list[str]:
    """Prepare the embedded recordings of tasks; their folders."""
    folders = [output / "shards" / task for task in tasks]
    for task, folder in zip(tasks, folders, strict=True):
        api.prepare(PrepareConfig(source=str(ROOT / "recordings" / f"{task}.tar"), output=str(folder)))
    return list(map(str, folders))


def run(output: Path, shards: Sequence[str], seed: int, precision: str, threads: int, epochs: int = 0) -> list[Margin]:
    """Train and evaluate one seed; its margins.

    Args:
        output: folder of all seeds.
        shards: folders of both tasks, or of those that a pre-training without students is to be of.
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
    return list(evaluation_job.run(evaluation_job.check(config)).margins)


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
    for heading in ("precision", "seed", *(f"{row}, {measure}" for row in ROWS for measure in MEASURES)):
        table.add_column(heading, justify="right")
    for precision in options.precision:
        for seed in range(options.seeds):
            found = run(output, shards, seed, precision, options.threads)
            table.add_row(
                precision, str(seed), *(each.difference[measure].text("+") for each in found for measure in MEASURES)
            )
            Console(width=150).print(table)


if __name__ == "__main__":
    main()
