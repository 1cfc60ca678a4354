"""A sweep whose driver is killed (SIGKILL) and which is then resumed: what it keeps, and where a trial's time goes.

    python -m benchmarks.chaos.killed_sweep [--trials 6] [--output output/bench]

It runs tuning/sweep.py as a user does, on the embedded drums with toy networks and a random network's pseudo-labels.
The driver is killed once two trials have ended and another has been scored. The same command is then given at once with
--resume. The seconds of a trial come from its record: training loops, scoring, and the rest around both.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mlflow import MlflowClient

from benchmarks.measure import Figure, figure, report
from unfused_ray.sweeps.trial import Record, read_records

ROOT = Path(__file__).parents[2]
_PATIENCE_SECONDS = 200.0


def sweep(folder: Path, trials: int, *more: str) -> subprocess.Popen[bytes]:
    """Start the sweep; its output joins that of this process."""
    given = {
        "--tasks": str(folder / "drums"),
        "--output": str(folder / "sweep"),
        "--num-trials": str(trials),
        "--distill.labels.origin": "random",
        "--distill.epochs": "4",
    }
    arguments = [part for argument in given.items() for part in argument]
    return _start(folder, ROOT / "tuning" / "sweep.py", "tiny", *arguments, *more)


def wait_until_killable(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until two trials have ended and a third, still running, has been scored.

    Raises:
        RuntimeError: the sweep does not get there.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        records = read_records(str(folder / "sweep"))
        if sum(record.has_ended for record in records) >= 2 and any(r.rungs and not r.has_ended for r in records):
            return
        time.sleep(0.05)
    raise RuntimeError("the sweep has not come to where it was to be killed: see its output above")


def main() -> None:
    """Kill the sweep, resume it and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "bench")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="unfused-ray-bench-") as name:
        folder = Path(name)
        source = str(ROOT / "recordings" / "drums.tar")
        _start(folder, ROOT / "jobs" / "prepare.py", "--source", source, "--output", str(folder / "drums")).wait()
        first = sweep(folder, options.trials)
        wait_until_killable(folder, first)
        first.kill()
        first.wait()
        killed = {record.id: record for record in read_records(str(folder / "sweep"))}
        started = time.perf_counter()
        if sweep(folder, options.trials, "--resume").wait():
            raise RuntimeError("the resumed sweep failed: see its output above")
        seconds = time.perf_counter() - started
        after = {record.id: record for record in read_records(str(folder / "sweep"))}
        ended = [record for record in killed.values() if record.has_ended]
        flying = [record for record in killed.values() if not record.has_ended]
        done = [record for record in after.values() if record.has_ended]
        around = [record.seconds - record.training_seconds - record.scoring_seconds for record in done]
        report(
            "killed sweep",
            [
                Figure("trials that had ended when the driver was killed", len(ended), "trials"),
                Figure("of them, as they were after the resume", sum(after[r.id] == r for r in ended), "trials"),
                Figure("trials in flight", len(flying), "trials"),
                Figure(
                    "of them, went on behind the rungs they had",
                    sum(_goes_on(r, after[r.id]) for r in flying),
                    "trials",
                ),
                Figure("trials that ended in all", len(done), "trials"),
                figure("a trial's training loops", [record.training_seconds for record in done], "s"),
                figure("a trial's scoring", [record.scoring_seconds for record in done], "s"),
                figure("a trial's rest", around, "s"),
                Figure("runs of trials in MLflow", _num_tracked(folder), "trials"),
                Figure("the resumed command, with the winner's training and table", seconds, "s"),
            ],
            options.output,
        )


def _goes_on(before: Record, after: Record) -> bool:
    return after.rungs[: len(before.rungs)] == before.rungs


def _num_tracked(folder: Path) -> int:
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return len(client.search_runs(experiments, "tags.`unfused_ray.stage` = 'trial'"))


def _start(folder: Path, *command: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=ROOT, env={**os.environ, "UNFUSED_RAY_HOME": str(folder)}
    )


if __name__ == "__main__":
    main()
