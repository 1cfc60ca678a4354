"""Every job, disturbed at seeded random moments, several times in one run, until it ends: is the result the same?

    make chaos, or: python -m benchmarks.chaos.run [--jobs pretrain sweep …] [--rounds 2] [--seed 0] [--keep]

The jobs are commands as a user gives them, on the embedded recordings with toy networks. Processes are killed
(SIGKILL), asked to end (SIGTERM) and frozen for 15 s (SIGSTOP, SIGCONT). If a driver ends, the same command is given
again. A training has recovered from a fault when it commits a newer checkpoint, another job when it ends. Lost steps
were trained twice: those from the checkpoint that was resumed to the last step that MLflow had recorded. None of them
may lie before the newest checkpoint. "Equal" means bit by bit equal to the result of the same command undisturbed.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.chaos.cluster import lost_node
from benchmarks.chaos.faults import ROOT, Case, Job, Outcome, inject
from benchmarks.chaos.training import disturb_training
from benchmarks.measure import command, machine
from unfused_ray.data.shards.format import Manifest
from unfused_ray.sweeps.trial import read_records


def main() -> None:
    """Disturb, compare and report; exit with code 1 if a result differs, or more steps were lost than allowed or
    than could be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="+", choices=_CASES, default=list(_CASES))
    parser.add_argument("--rounds", type=int, default=2, help="how often each fault is done in a run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "bench")
    parser.add_argument("--keep", action="store_true", help="leave the runs and logs in the temporary folder")
    options = parser.parse_args()
    outcomes: list[Outcome] = []
    folder = Path(tempfile.mkdtemp(prefix="unfused-ray-chaos-"))
    print(f"runs and logs are in {folder}")
    try:
        drums = folder / "drums"
        _prepare(folder, drums)
        for job in options.jobs:
            case = Case(folder, drums, random.Random(f"{options.seed} {job}"), options.rounds)
            outcomes += _CASES[job](case)
            _report(outcomes, options.output)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(not all(outcome.equal and outcome.within_bound for outcome in outcomes))


def _prepare(folder: Path, output: Path) -> Job:
    source = ROOT / "recordings" / "drums.tar"
    job = Job(folder, output.name, ["jobs/prepare.py", "--source", str(source), "--output", str(output)])
    job.finish()
    return job


def prepare(case: Case) -> list[Outcome]:
    """Ingest, while tasks and the driver are killed."""
    source = str(ROOT / "recordings" / "*.tar")  # one of them is so small that it is read without tasks

    def command(output: Path) -> list[str]:
        return ["jobs/prepare.py", "--source", source, "--output", str(output), "--clips-per-shard", "16"]

    def result(output: Path) -> object:
        manifest = Manifest.load(str(output))
        return manifest.shards, manifest.rejects, (output / "rejects.parquet").read_bytes()

    return _until_done(case, "prepare", command, result, ("task", "driver"))


def embed(case: Case) -> list[Outcome]:
    """Embed, while tasks and the driver are killed."""
    encoder = str(_trained(case))

    def command(output: Path) -> list[str]:
        given = ["--encoder", encoder, "--source", str(case.drums), "--output", str(output)]
        return ["jobs/embed.py", *given, "--clips-per-part", "8"]

    def result(output: Path) -> object:
        return {path.name: path.read_bytes() for path in output.glob("part-*.parquet")}

    return _until_done(case, "embed", command, result, ("task", "driver"))


def evaluate(case: Case) -> list[Outcome]:
    """Evaluate, while the driver is killed."""
    models = f"teacher={_trained(case)}"

    def command(output: Path) -> list[str]:
        return ["jobs/evaluate.py", "--tasks", str(case.drums), "--models", models, "--output", str(output)]

    def result(output: Path) -> object:
        return {path.name: json.loads(path.read_bytes())["seeds"] for path in (output / "drums").glob("*.json")}

    return _until_done(case, "evaluate", command, result, ("driver",))


def sweep(case: Case) -> list[Outcome]:
    """Sweep without early stopping, which depends on the order of the trials, while the driver is killed."""

    def command(output: Path) -> list[str]:
        given = ["--tasks", str(case.drums), "--output", str(output), "--search", "random", "--num-trials", "3"]
        given += ["--no-early-stopping", "--distill.labels.origin", "random"]
        return ["tuning/sweep.py", "tiny", *given]

    def result(output: Path) -> object:
        return {record.id: record.rungs for record in read_records(str(output))}

    return _until_done(case, "sweep", command, result, ("driver",), again=("--resume",))


def _until_done(
    case: Case,
    name: str,
    command: Callable[[Path], Sequence[str]],
    result: Callable[[Path], object],
    faults: Sequence[str],
    again: Sequence[str] = (),
) -> list[Outcome]:
    """Disturb a job that keeps finished pieces, at random moments within the time that it takes undisturbed."""
    started = time.monotonic()
    Job(case.folder, f"{name}-undisturbed", command(case.folder / f"{name}-undisturbed")).finish()
    seconds = time.monotonic() - started
    job = Job(case.folder, name, command(case.folder / name), again)
    injected = []
    for fault in case.shuffled(faults):
        time.sleep(case.rng.uniform(0.3, 0.9) * seconds / case.rounds)
        if job.process.poll() is None and (done := inject(job, fault)):
            injected.append(done)
            if done.code is not None:
                job.again()
    job.finish()
    end = time.time()
    equal = result(case.folder / name) == result(case.folder / f"{name}-undisturbed")
    return [Outcome(name, one.fault, end - one.at, equal, code=one.code) for one in injected]


def _trained(case: Case) -> Path:
    """Pre-train once without a disturbance; return the run's folder."""
    output = case.folder / "encoder"
    if not output.exists():
        command = ["jobs/pretrain.py", "tiny", "--data", str(case.drums), "--output", str(output)]
        Job(case.folder, output.name, command).finish()
    return output


def _report(outcomes: Sequence[Outcome], output: Path) -> None:
    """Print a line for each fault of each job, and write all outcomes as JSON."""
    table = Table(
        "job", "fault", "times", "recovered in, s", "steps lost", "result equal", "driver's code", title="chaos"
    )
    for job, fault in dict.fromkeys((one.job, one.fault) for one in outcomes):
        own = [one for one in outcomes if (one.job, one.fault) == (job, fault)]
        lost = [one.lost for one in own if one.lost is not None]
        seconds = ", ".join(f"{one.seconds:.0f}" for one in own)
        steps = ", ".join(map(str, lost))
        steps += ": TOO MANY" if any(one.within_bound is False for one in own) else ""
        steps += ": NOT MEASURED" if any(one.within_bound is None for one in own) else ""
        codes = ", ".join(str(one.code) for one in own if one.code is not None)
        equal = "yes" if all(one.equal for one in own) else "NO"
        table.add_row(job, fault, str(len(own)), seconds, steps, equal, codes)
    Console(width=120).print(table)
    output.mkdir(parents=True, exist_ok=True)
    record = {
        "title": "chaos",
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "command": command(),
        "machine": machine(),
        "outcomes": [asdict(one) for one in outcomes],
    }
    (output / "chaos.json").write_text(json.dumps(record, indent=1))


_CASES: dict[str, Callable[[Case], list[Outcome]]] = {
    "prepare": prepare,
    "pretrain": lambda case: disturb_training(case, "pretrain"),
    "distill": lambda case: disturb_training(case, "distill"),
    "evaluate": evaluate,
    "embed": embed,
    "sweep": sweep,
    "cluster": lambda case: lost_node(case.folder, case.drums),
}

if __name__ == "__main__":
    main()
