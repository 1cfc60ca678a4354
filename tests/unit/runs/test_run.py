"""A run's folder: which settings may change, and who may work on it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.processes import wait_for

from unfused_ray.config import PretrainConfig
from unfused_ray.runs import lease as lease_module
from unfused_ray.runs.files import write_file
from unfused_ray.runs.lease import Lease, RunInUseError, is_in_use
from unfused_ray.runs.run import ConfigurationChangedError, Run
from unfused_ray.runs.status import Status

FACTS = {"num_clips": 10, "data_checksums": ["a"]}


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("seed", 4, "seed: 0 → 4"),
        ("batch.block", 32, "batch.block: 64 → 32"),
        ("batch.blocks_per_step", 4, "batch.blocks_per_step: 2 → 4"),
        ("method.num_clusters", (7, 8), "method.num_clusters: [512] → [7, 8]"),
        ("encoder.width", 1024, "encoder.width: 2048 → 1024"),
        ("optimizer.lr", 0.1, "optimizer.lr: 0.0003 → 0.1"),
        ("crop.seconds", 2.0, "crop.seconds: 0.95 → 2.0"),
        ("runtime.precision", "bfloat16", 'runtime.precision: "auto" → "bfloat16"'),
    ],
)
def test_a_run_refuses_other_settings_and_shows_the_difference(
    name: str, value: Any, line: str, tmp_path: Path
) -> None:
    Run(str(tmp_path)).open(PretrainConfig(), FACTS)
    commit_checkpoint(tmp_path)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(ConfigurationChangedError) as refusal:
        Run(str(tmp_path)).open(PretrainConfig().replace({name: value}), FACTS)
    assert [text for text in str(refusal.value).splitlines() if "→" in text] == [f"  {line}"]
    assert "--fork" in str(refusal.value)
    assert (tmp_path / "run.json").read_bytes() == before


def commit_checkpoint(folder: Path) -> None:
    manifest = folder / "checkpoints" / "e0000-s000001" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")


def test_a_run_without_a_checkpoint_begins_anew_with_other_settings(tmp_path: Path) -> None:
    """A command that failed in its first minutes can be corrected."""
    run = Run(str(tmp_path))
    first = run.open(PretrainConfig(), FACTS)
    assert run.open(PretrainConfig(), FACTS) == first
    (tmp_path / "assignments" / "epoch-0000").mkdir(parents=True)
    corrected = PretrainConfig().replace({"crop.seconds": 2.0})
    second = run.open(corrected, FACTS)
    assert second["config"] == run.record()["config"] == corrected.model_dump(mode="json")
    assert second["id"] != first["id"]
    assert not (tmp_path / "assignments").exists()


def test_a_run_refuses_other_data(tmp_path: Path) -> None:
    Run(str(tmp_path)).open(PretrainConfig(), FACTS)
    commit_checkpoint(tmp_path)
    with pytest.raises(ConfigurationChangedError, match='data_checksums: \\["a"\\] → \\["b"\\]'):
        Run(str(tmp_path)).open(PretrainConfig(), {**FACTS, "data_checksums": ["b"]})


def test_a_run_goes_on_with_other_workers_epochs_and_paths(tmp_path: Path) -> None:
    first = Run(str(tmp_path)).open(PretrainConfig(data=("here",)), FACTS)
    nested = {"runtime.num_workers": 2, "checkpoint.keep": 9, "tracking.uri": "http://127.0.0.1:5000"}
    config = PretrainConfig().replace(nested, data=("there",), output="moved", epochs=7)
    second = Run(str(tmp_path)).open(config, FACTS)
    assert (second["id"], second["created"]) == (first["id"], first["created"])
    assert (
        second["config"] == json.loads((tmp_path / "run.json").read_text())["config"] == config.model_dump(mode="json")
    )


@pytest.mark.parametrize("version", [None, 1, 99])
def test_a_run_of_another_version_is_refused_with_the_version_named(version: int | None, tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    run.open(PretrainConfig(), FACTS)
    run.write_status(Status("stopped", 1, 0))
    run.write_history([{"epoch": 0.0}])
    for file in tmp_path.iterdir():
        content = json.loads(file.read_text())
        del content["format_version"]
        file.write_text(json.dumps(content if version is None else {"format_version": version, **content}))
    told = f"format_version {version or 'none'}.*, this version reads 2: train the run anew"
    for read in (run.record, run.status, run.history, lambda: run.open(PretrainConfig(), FACTS)):
        with pytest.raises(ValueError, match=told):
            read()


def test_a_run_whose_settings_are_not_those_of_this_version_is_refused(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    record = run.open(PretrainConfig(), FACTS)
    write_file(run.uri, "run.json", {**record, "config": {**record["config"], "epoch": 3}})
    with pytest.raises(ValueError, match=r"has settings of another version:\nepoch=3: Extra inputs"):
        run.record()


def test_status_is_what_was_said_last(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    assert run.status() is None
    run.write_status(Status("running", 0, 0))
    run.write_status(Status("stopped", 3, 14, "why"))
    status = run.status()
    assert status is not None
    assert (status.state, status.epoch, status.step, status.message) == ("stopped", 3, 14, "why")
    assert status.updated == pytest.approx(time.time(), abs=60)


HOLD = """
import sys
from unfused_ray.runs.lease import Lease
with Lease(sys.argv[1], on_loss=lambda: None):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(run_uri: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease until its standard input is closed."""
    command = [sys.executable, "-c", HOLD, run_uri]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def lease(run_uri: str, on_loss: Callable[[], None] = lambda: None) -> Lease:
    return Lease(run_uri, on_loss)


def test_a_second_process_is_refused_and_told_who_works_on_the_run(tmp_path: Path) -> None:
    with holder(str(tmp_path)) as process:
        assert is_in_use(str(tmp_path))
        for _ in range(2):  # a refusal leaves the lease as it is
            with (
                pytest.raises(RunInUseError, match=f"process {process.pid} on {socket.gethostname()}"),
                lease(str(tmp_path)),
            ):
                pass
        process.communicate("")
        assert process.returncode == 0
        assert not is_in_use(str(tmp_path))
        with lease(str(tmp_path)):
            assert is_in_use(str(tmp_path))


@pytest.mark.parametrize("reaped", [True, False], ids=["gone", "zombie"])
def test_the_lease_of_a_dead_process_lapses_at_once(tmp_path: Path, reaped: bool) -> None:
    with holder(str(tmp_path)) as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | (0 if reaped else os.WNOWAIT))
        assert not is_in_use(str(tmp_path))
        with lease(str(tmp_path)):
            pass


def test_a_process_that_has_got_the_number_of_a_dead_holder_is_not_the_holder(tmp_path: Path) -> None:
    write_lease(tmp_path, host=socket.gethostname(), pid=os.getpid(), process_started=1.0)
    with lease(str(tmp_path)):
        pass


def write_lease(folder: Path, host: str = "another-machine", pid: int = 1, process_started: float = 1.0) -> None:
    owner = {"token": uuid.uuid4().hex, "host": host, "pid": pid, "process_started": process_started}
    (folder / "lease.json").write_text(json.dumps({**owner, "renewed": time.time()}))


def test_the_lease_of_another_machine_lapses_when_it_is_not_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lease(tmp_path)
    with pytest.raises(RunInUseError, match="process 1 on another-machine"), lease(str(tmp_path)):
        pass
    monkeypatch.setattr(
        lease_module, "LEASE_SECONDS", time.time() - json.loads((tmp_path / "lease.json").read_text())["renewed"]
    )
    with lease(str(tmp_path)):
        assert is_in_use(str(tmp_path))


def test_the_lease_is_released_whatever_ends_the_work(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), lease(str(tmp_path)):
        raise KeyboardInterrupt
    assert not (tmp_path / "lease.json").exists()


def test_a_held_lease_is_renewed_and_its_loss_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 0.2)
    file, lost = tmp_path / "lease.json", threading.Event()
    with lease(str(tmp_path), lost.set):
        first = json.loads(file.read_text())["renewed"]
        wait_for(lambda: json.loads(file.read_text())["renewed"] > first)
        # What is no lease is no loss, and does not end the renewing. The thread may write over it once.
        wait_for(lambda: file.write_text("half a l") > 0 and "could not be renewed" in caplog.text)
        assert not lost.is_set()

        # Between two renewals another process may write over ours; whose lease it then is, is read back.
        def take_over() -> bool:
            write_lease(tmp_path)
            return lost.wait(0.05)

        wait_for(take_over)
    assert json.loads(file.read_text())["host"] == "another-machine"
