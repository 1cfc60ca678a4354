"""Cost of looks during a training: with and without by turns, and the cost of a process beside the training instead.

    python -m benchmarks.watch --data SHARDS … --watch SHARDS … [--recipe corpus] [--epochs 6] [--rounds 2]

Each round trains the recipe twice from the start in this process, without looks and with looks; a source may be named
several times, for longer epochs. Seconds of processor time are those of all threads: they count what is computed even
if other work runs on the machine. Then a training step is timed by turns, alone and beside a process of lowest priority
that looks again and again on one thread.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.measure import Figure, by_turns, figure, ratio, report
from unfused_ray import recipes
from unfused_ray.config import PretrainConfig
from unfused_ray.data.stream.plan import Pass
from unfused_ray.data.stream.prefetch import LocalSource
from unfused_ray.machine import memory
from unfused_ray.runs.run import Run
from unfused_ray.training.driver import dry_run, launch

_BESIDE = """
import os, sys
os.nice(19)
import torch
torch.set_num_threads(1)
from unfused_ray.config import EncoderConfig, FrontEndConfig, WatchConfig
from unfused_ray.evaluation.watch import Watch
from unfused_ray.evaluation.watched_clips import watched_tasks
from unfused_ray.models.encoder import AudioNTT2020
shape, front_end = EncoderConfig.model_validate_json(sys.argv[1]), FrontEndConfig()
watch = Watch(watched_tasks(WatchConfig(data=tuple(sys.argv[2:])), front_end), front_end, torch.device("cpu"))
print("ready", flush=True)
while True:
    watch.look(AudioNTT2020(shape, front_end.num_mels))
"""


def train(config: PretrainConfig) -> dict[str, float]:
    """Train; return seconds of wall clock and of processor, of an epoch, of the first look and of a later one."""
    started, computed = time.perf_counter(), time.process_time()
    launch.run(launch.check(config))
    taken = {"whole": time.perf_counter() - started, "processor": time.process_time() - computed}
    history = Run(config.output).history()
    looks = [entry["seconds_watch"] for entry in history if "seconds_watch" in entry]
    spent = [sum(value for name, value in e.items() if name in ("seconds_train", "seconds_cluster")) for e in history]
    return taken | {"epoch": float(np.median(spent)), "first look": sum(looks[:1]), "look": sum(looks[1:2])}


def beside(config: PretrainConfig, watch: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """Time a training step, alone and beside a process that looks, by turns."""
    plan = launch.check(config)
    measured = dry_run.Measurement(config, plan.index)
    source = LocalSource(measured.job.planner, measured.job.reader)
    some = source.blocks(Pass("train", 0))
    blocks = [next(some) for _ in range(measured.learner.blocks_per_step)]

    def step() -> None:
        measured.step(iter(blocks))

    command = [sys.executable, "-c", _BESIDE, config.encoder.model_dump_json(), *watch]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()

    def step_beside() -> None:
        os.kill(process.pid, signal.SIGCONT)
        step()
        os.kill(process.pid, signal.SIGSTOP)

    os.kill(process.pid, signal.SIGSTOP)
    try:
        return by_turns({"alone": step, "beside a process of lowest priority": step_beside}, rounds)
    finally:
        process.kill()


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--watch", nargs="+", required=True)
    parser.add_argument("--recipe", default="corpus")
    parser.add_argument(
        "--epochs", type=int, default=6, help="6 has two looks by default: after the first and the last"
    )
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20, help="steps timed alone and beside a process")
    parser.add_argument("--output", type=Path, default=Path("output/bench"))
    args = parser.parse_args()
    memory.keep_freed()
    common = {"data": tuple(args.data), "epochs": args.epochs, "tracking.uri": "off"}
    runtime = {"runtime.kind": "in-process", "runtime.threads": args.threads}
    recipe = recipes.PRETRAIN[args.recipe][1].replace(common | runtime)
    settings = {"without looks": {}, "with looks": {"watch.data": tuple(args.watch)}}
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in settings}
    for _ in range(args.rounds):
        for name, own in settings.items():
            with tempfile.TemporaryDirectory(prefix="unfused-ray-watch-") as folder:
                taken[name].append(train(recipe.replace({**own, "output": f"{folder}/run"})))
    figures: list[Figure] = []
    for name, runs in taken.items():
        shown = ("whole", "processor", "epoch", *(("first look", "look") if settings[name] else ()))
        figures += [figure(f"{name}: {each}", [run[each] for run in runs], "s") for each in shown]
    looked = taken["with looks"]
    figures.append(ratio("a look / an epoch", [r["look"] for r in looked], [r["epoch"] for r in looked]))
    steps = beside(recipe.replace(output="/tmp/unused"), args.watch, args.steps)
    figures += [figure(f"a step {name}", seconds, "s") for name, seconds in steps.items()]
    figures.append(ratio("a step beside / alone", steps["beside a process of lowest priority"], steps["alone"]))
    report("watch", figures, args.output)


if __name__ == "__main__":
    main()
