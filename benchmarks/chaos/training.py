"""A training that is disturbed again and again: what it loses, and whether it ends as if undisturbed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from mlflow import MlflowClient

from benchmarks.chaos.faults import Case, Injected, Job, Outcome, inject
from unfused_ray.clustering.bank import Bank, LocalShards
from unfused_ray.clustering.bank_shard import BankShard
from unfused_ray.config import TrackingConfig
from unfused_ray.runs.checkpoints import MANIFEST, CheckpointStore, Position
from unfused_ray.runs.run import Run
from unfused_ray.tracking.mlflow import find_run
from unfused_ray.tracking.store import experiment_name
from unfused_ray.training.coordinator import RunProgress

_FAULTS: Mapping[str, tuple[str, ...]] = {
    "pretrain": (
        *("train worker", "data task", "assignment actor", "assignment shard", "coordinator", "frozen train worker"),
        *("SIGTERM", "driver", "raylet", "GCS"),
    ),
    "distill": ("train worker", "data task", "coordinator", "frozen train worker", "SIGTERM", "driver"),
}
_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "pretrain": ("jobs/pretrain.py", "tiny", "--method.assignment-shards", "2"),
    "distill": ("jobs/distill.py", "tiny", "--labels.origin", "random"),
}
_SETTINGS = ("--runtime.kind", "workers", "--checkpoint.every-minutes", "0.05")
_EPOCHS = 1000  # more than the test needs; the learning rate's schedule depends on it
_AGAIN = "starting again from the newest checkpoint"


def disturb_training(case: Case, name: str) -> list[Outcome]:
    """Train on a worker group with every fault of the job, then as far in one process undisturbed, and compare."""

    def command(output: Path) -> list[str]:
        given = ["--data", str(case.drums), "--output", str(output), "--epochs", str(_EPOCHS)]
        return [*_COMMANDS[name], *given, "--runtime.threads", "1"]

    whole, run = case.folder / f"{name}-undisturbed", case.folder / name
    job = Job(case.folder, run.name, [*command(run), *_SETTINGS])
    done: list[tuple[Injected, str, str, float]] = []
    for fault in case.shuffled(_FAULTS[name]):
        for _ in range(case.rng.randint(1, 3)):
            seen = newest(run)
            job.reach(lambda seen=seen: newest(run) > seen)  # type: ignore[misc]
        time.sleep(case.rng.uniform(0, 2))
        before, told = newest(run), job.log.read_text().count(_AGAIN)
        injected = inject(job, fault)
        if injected is None:
            raise RuntimeError(f"the run has ended before a fault, {fault}: see {job.log}")
        resumed = newest(run)
        if injected.code is not None:
            job.again()
        job.reach(lambda resumed=resumed: newest(run) > resumed)  # type: ignore[misc]
        began_again = injected.code is not None or job.log.read_text().count(_AGAIN) > told
        done.append((injected, before, resumed if began_again else "", time.time()))
    inject(job, "SIGTERM")
    stop = Position.of(newest(run)).epoch + 1
    Job(case.folder, run.name, [*command(run), *_SETTINGS, "--stop-after", str(stop)]).finish()
    Job(case.folder, whole.name, [*command(whole), "--stop-after", str(stop)]).finish()
    equal = _result(run) == _result(whole)
    reports = _reports(case.folder, run)
    steps_per_epoch = max(step for _, step in reports) // stop
    return [
        Outcome(
            name,
            injected.fault,
            recovered - injected.at,
            equal,
            _lost(reports, injected, resumed, steps_per_epoch),
            not resumed or _within_bound(job.records, injected, before, recovered),
            injected.code,
        )
        for injected, before, resumed, recovered in done
    ]


def newest(run: Path | str) -> str:
    """Return the name of the newest committed checkpoint; '' if there is none."""
    committed = CheckpointStore(str(run)).committed()
    return committed[0].partition("?")[0].rpartition("/")[2] if committed else ""


def _result(run: Path) -> tuple[object, ...]:
    """Read everything that must not differ: weights, optimiser, bank and labels at the end, and the exported
    network."""
    checkpoint = run / "checkpoints" / newest(run)
    files: dict[str, object] = json.loads((checkpoint / MANIFEST).read_bytes())["files"]
    del files["details.json"]
    if (checkpoint / "bank").exists():  # one process keeps one file, a run's shards several
        files = {name: sha for name, sha in files.items() if not name.startswith(("bank/bank.json", "bank/shard-"))}
        files["bank"] = _bank(checkpoint / "bank")
    exported = [path.read_bytes() for path in sorted(run.glob("*/*.safetensors"))]
    return checkpoint.name, files, exported


def _bank(folder: Path) -> bytes:
    """Return the embeddings of all clips as bytes."""
    manifest = json.loads((folder / "bank.json").read_bytes())
    num_clips, dim = manifest["num_clips"], manifest["dim"]
    bank = Bank(LocalShards([BankShard(0, 1, num_clips, dim, threads=1)]), num_clips, dim)
    bank.load(str(folder))
    return bank.gather(np.arange(num_clips)).tobytes()


def _reports(home: Path, run: Path) -> list[tuple[float, int]]:
    """Return time (seconds since 1970) and step of every report that reached MLflow, in order of time."""
    client = MlflowClient(tracking_uri=f"sqlite:///{home}/mlflow.db")
    tracked = find_run(client, experiment_name(TrackingConfig()), Run(str(run)).record()["id"])
    assert tracked is not None
    names = ("loss", "epoch/loss")
    points = [point for name in names for point in client.get_metric_history(tracked.info.run_id, name)]
    return sorted((point.timestamp / 1000, point.step) for point in points)


def _lost(reports: Sequence[tuple[float, int]], injected: Injected, resumed: str, steps_per_epoch: int) -> int:
    """Count the steps trained twice: from the resumed checkpoint to the last step reported before the fault."""
    if not resumed:
        return 0
    told = [step for at, step in reports if at <= injected.at]
    return max(0, (told[-1] if told else 0) - Position.of(resumed).steps(steps_per_epoch))


def _within_bound(log: Path, injected: Injected, before: str, recovered: float) -> bool | None:
    """Return True if no training or worker group that began after the fault began before the newest checkpoint; None if
    no beginning is recorded.

    The driver's records of a beginning tell it; MLflow does not, because repeated steps are not sent again.
    """
    records = [json.loads(line) for line in log.read_text().splitlines()]
    began = [
        Position(record["epoch"], record["step"])
        for record in records
        if record["message"] == RunProgress.phase
        if injected.at < datetime.fromisoformat(record["time"]).timestamp() <= recovered
    ]
    return all(position >= Position.of(before) for position in began) if began else None
