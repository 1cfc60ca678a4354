"""Whole pre-training jobs on a local cluster and as processes: killed, interrupted and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.paths import ROOT
from support.processes import kill_child, wait_for
from support.runs import assert_equal_runs, assignments, history, tiny, train, weights
from support.tasks import write_task
from support.terminal import Ended

from unfused_ray.config import PretrainConfig
from unfused_ray.lease import Lease
from unfused_ray.runs.run import Run
from unfused_ray.runs.watched import watched_curves
from unfused_ray.training.driver import dry_run

JOB = ROOT / "jobs" / "pretrain.py"
STEPS = 12  # in an epoch: 100 clips, 8 a global batch


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of a run that is watched after both of its epochs."""
    task = write_task(tmp_path_factory.mktemp("tasks") / "tones", 16, 8, 0)
    return {"watch__data": (task,), "watch__every": 1}


@pytest.fixture(scope="module")
def config(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., PretrainConfig]:
    """Return a function: configuration of a run into the module's folder ``name``, with changed fields."""
    folder = tmp_path_factory.mktemp("runs")
    tracking_uri = f"sqlite:///{folder}/mlflow.db"
    batch = {"batch__block": 4, "batch__blocks_per_step": 2}
    return lambda name, **fields: tiny(source, folder / name, tracking_uri, **batch, **fields)


@pytest.fixture(scope="module")
def undisturbed(config: Callable[..., PretrainConfig], watched: dict[str, Any]) -> Path:
    """Folder of an undisturbed watched run, made in this process on one thread."""
    job = config("undisturbed", **watched)
    assert train(job).state == "finished"
    return Path(job.output)


def has_checkpoint(run: Path, epoch: int, step: int) -> Callable[[], bool]:
    """Return a condition: the run has a checkpoint of this step or a later one; older ones may be pruned."""
    first = f"e{epoch:04d}-s{step:06d}"
    folder = run / "checkpoints"
    return lambda: folder.exists() and any(path.name >= first for path in folder.iterdir())


@pytest.mark.usefixtures("ray_session")
def test_two_workers_give_the_labels_and_nearly_the_weights_of_one_process(
    config: Callable[..., PretrainConfig], undisturbed: Path, watched: dict[str, Any]
) -> None:
    job = config("two-workers", runtime__kind="workers", runtime__num_workers=2, **watched)
    status = train(job)
    assert (status.state, status.epoch, status.step) == ("finished", 2, 0)
    run = Path(job.output)
    ours, theirs = assignments(run), assignments(undisturbed)
    first = [name for name in ours if "epoch-0000" in name]
    assert first
    assert all(ours[name] == theirs[name] for name in first)
    expected = weights(undisturbed)
    for name, found in weights(run).items():
        np.testing.assert_allclose(found, expected[name], rtol=1e-3, atol=1e-4, err_msg=name)
    for found, wanted in zip(history(run), history(undisturbed), strict=True):
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-3)
    ours, theirs = (watched_curves(history(each)) for each in (run, undisturbed))
    for curve, other in zip(ours, theirs, strict=True):
        assert curve.random == pytest.approx(other.random, abs=1e-3)  # one watcher for all workers
        assert list(curve.epochs) == [1, 2]
        assert curve.accuracies == pytest.approx(other.accuracies, abs=0.2)


@pytest.mark.usefixtures("ray_session")
def test_killed_processes_of_a_job_change_nothing(
    config: Callable[..., PretrainConfig], undisturbed: Path, watched: dict[str, Any]
) -> None:
    job = config("killed", runtime__kind="workers", checkpoint__every_minutes=1e-9, **watched)
    run = Path(job.output)
    kills = [("RayTrainWorker", 0, 3), ("AssignmentActor", 1, 3), ("Coordinator", 1, 7)]
    killed = []

    def kill() -> None:
        for name, epoch, step in kills:
            wait_for(has_checkpoint(run, epoch, step))
            kill_child(f"ray::{name}")
            killed.append(name)

    killer = threading.Thread(target=kill)
    killer.start()
    assert train(job).state == "finished"
    killer.join()
    assert killed == [name for name, _, _ in kills]
    assert_equal_runs(run, undisturbed)


LONG = {"epochs": 15}  # long enough to be interrupted three times


@pytest.fixture
def start(config: Callable[..., PretrainConfig], tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Return a function that starts the job of the run ``name`` as a process."""
    processes = []

    def popen(name: str) -> subprocess.Popen[str]:
        job = config(name, **LONG)
        arguments = {
            "--data": job.data[0],
            "--output": job.output,
            "--epochs": str(job.epochs),
            "--batch.block": str(job.batch.block),
            "--batch.blocks-per-step": str(job.batch.blocks_per_step),
            "--runtime.threads": "1",
            "--tracking.uri": job.tracking.uri,
        }
        flat = [part for argument in arguments.items() for part in argument]
        processes.append(
            subprocess.Popen(
                [sys.executable, str(JOB), "tiny", *flat],
                cwd=tmp_path,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
        return processes[-1]

    yield popen
    for process in processes:
        process.kill()
        process.communicate()


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def num_epochs(run: Path) -> int:
    """Return the number of finished epochs in the newest checkpoint."""
    names = [path.name for path in (run / "checkpoints").glob("e*")]
    return int(max(names)[1:5]) if names else 0


def test_a_job_that_is_interrupted_or_killed_goes_on_by_the_same_command(
    start: Callable[[str], subprocess.Popen[str]], config: Callable[..., PretrainConfig]
) -> None:
    whole = config("long", **LONG)
    assert train(whole).state == "finished"
    run = Path(config("interrupted").output)

    for number in (signal.SIGTERM, signal.SIGINT):
        done = num_epochs(run)
        process = start("interrupted")
        wait_for(lambda done=done: num_epochs(run) > done)
        process.send_signal(number)
        code, output = end(process)
        assert code == 143, output
        assert number.name in output
        status = Run(str(run)).status()
        assert status is not None
        assert status.state == "stopped"
        assert (run / "checkpoints" / f"e{status.epoch:04d}-s{status.step:06d}" / "manifest.json").exists()
        assert not (run / "lease.json").exists()

    done = num_epochs(run)
    process = start("interrupted")
    wait_for(lambda: num_epochs(run) > done)
    process.send_signal(signal.SIGKILL)
    assert end(process)[0] == -signal.SIGKILL
    assert (run / "lease.json").exists()

    code, output = end(start("interrupted"))
    assert code == 0, output
    assert "finished" in output
    assert f"unfused-ray report {run}" in output
    assert (run / "pictures" / "map.png").exists()
    assert_equal_runs(run, Path(whole.output))
    assert not (run / "lease.json").exists()


def test_a_second_process_on_a_run_is_refused(
    start: Callable[[str], subprocess.Popen[str]], config: Callable[..., PretrainConfig]
) -> None:
    with Lease(config("leased").output, on_loss=lambda: None):
        code, output = end(start("leased"))
    assert code == 2
    assert f"process {os.getpid()} on" in output
    assert "Traceback" not in output
    assert not list(Path(config("leased").output).iterdir())


@pytest.mark.usefixtures("ray_session")
def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: Callable[..., Ended]
) -> None:
    monkeypatch.setenv("UNFUSED_RAY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(dry_run, "STEP_SECONDS", 0.0)
    before = sorted(source.iterdir())
    paths = ["--data", str(source), "--output", str(tmp_path / "run")]
    ended = command_line("pretrain", "tiny", *paths, "--runtime.kind", "workers", "--dry-run")
    assert ended.code == 0, ended.err
    assert "100 clips" in ended.out
    assert "2 × 3 of 32 clips" in ended.out
    assert not list(tmp_path.iterdir())
    assert sorted(source.iterdir()) == before
