"""UnFuSeD on the free corpus: the table of all six tasks, and the ceiling and the floor of two.

    python benchmarks/corpus.py --corpus FOLDER [--steps 320] [--output FOLDER]

Takes what ``make corpus`` builds; pre-trains DECAR-v2 on it (recipe ``corpus``), distils a student for each task, each
within the same number of steps of 64 clips, and one for all tasks together, and evaluates them beside random networks
and log-mel statistics. Then, on kws and inst, students of true labels (the ceiling), of a random encoder's clusters and
of shuffled labels (the floor). Every stage goes on where it was: the same command again finishes an interrupted one.
Two to four hours on two cores, of which the pre-training takes half an hour.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from pathlib import Path

from unfused_ray.data.shards import ClipIndex

JOBS = Path(__file__).parent.parent / "jobs"
TASKS = ("kws", "spk", "drum", "letter", "inst", "lid")
CEILING_TASKS = ("kws", "inst")
CLIPS_PER_STEP = 64
JOINT_CLUSTERS = 256


def run(job: str, *arguments: str | Path) -> None:
    """Run one job to its end, and say how long it took."""
    started = time.perf_counter()
    command = [sys.executable, str(JOBS / f"{job}.py"), *map(str, arguments)]
    print("$", *command[1:], flush=True)
    subprocess.run(command, check=True)
    print(f"# {time.perf_counter() - started:.0f} s", flush=True)


def epochs_of(steps: int, *shards: Path) -> int:
    """The fewest passes over the training clips of some tasks that make a number of steps."""
    clips = ClipIndex.load([str(folder) for folder in shards], ("", "train")).num_clips
    return math.ceil(steps / (clips // CLIPS_PER_STEP))


def main() -> None:
    """Prepare, train and evaluate all there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="what make corpus has built")
    parser.add_argument("--output", type=Path, default=Path("output/corpus"), help="shards, runs and tables")
    parser.add_argument("--steps", type=int, default=320, help="of a student; the joint one takes twice as many")
    options = parser.parse_args()
    shards, runs = options.output / "shards", options.output / "runs"
    run("prepare", "--source", options.corpus / "pretrain.csv", "--output", shards / "pretrain")
    for task in TASKS:
        run("prepare", "--source", options.corpus / task, "--output", shards / task)
    teacher = runs / "decar-v2"
    run("pretrain", "corpus", "--data", shards / "pretrain", "--output", teacher)

    def distil(name: str, steps: int, tasks: tuple[str, ...], *settings: str) -> None:
        data = [shards / task for task in tasks]
        epochs = str(epochs_of(steps, *data))
        places = ["--data", *data, "--teacher", teacher, "--output", runs / name, "--name", name]
        run("distill", "unfused", *places, "--epochs", epochs, *settings)

    for task in TASKS:
        distil(f"teacher-{task}", options.steps, (task,))
    distil("joint", 2 * options.steps, TASKS, "--labels.num-clusters", str(JOINT_CLUSTERS))
    models = [
        f"DECAR-v2={teacher}",
        f"UnFuSeD, per task={runs}/teacher-{{task}}",
        f"UnFuSeD, joint={runs / 'joint'}",
    ]
    tasks = [shards / task for task in TASKS]
    run("evaluate", "--name", "corpus", "--models", *models, "--tasks", *tasks, "--output", options.output / "table")

    origins = ("true", "random", "shuffled")
    for task in CEILING_TASKS:
        for origin in origins:
            distil(f"{origin}-{task}", options.steps, (task,), "--labels.origin", origin)
    models = [f"{origin} labels={runs}/{origin}-{{task}}" for origin in ("teacher", *origins)]
    tasks = [shards / task for task in CEILING_TASKS]
    run(
        *("evaluate", "--name", "ceiling", "--models", *models, "--tasks", *tasks),
        *("--random-seeds", "0", "--output", options.output / "ceiling"),  # random networks stand in the first table
    )


if __name__ == "__main__":
    main()
