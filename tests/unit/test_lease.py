"""A lease lets one process work in a folder, until the process ends or no longer renews it."""

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

import psutil
import pytest
from support.processes import wait_for

from unfused_ray import lease as lease_module
from unfused_ray.lease import InUseError, Lease, is_in_use, refuse_lost

HOLD = """
import sys
from unfused_ray.lease import Lease
with Lease(sys.argv[1], on_loss=lambda: None):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(run_uri: str) -> Iterator[subprocess.Popen[str]]:
    """Start another process that holds the lease until its standard input is closed."""
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
        for _ in range(2):  # a refusal does not change the lease
            with (
                pytest.raises(InUseError, match=f"process {process.pid} on {socket.gethostname()}"),
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
    write_lease(tmp_path, host=socket.gethostname(), system=lease_module._system(), pid=os.getpid())
    with lease(str(tmp_path)):
        pass


def test_a_clock_that_is_put_right_ends_no_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux gives a process's start in time of day as the machine's start plus a duration, and moves the former."""
    boot_time = psutil.boot_time()
    with holder(str(tmp_path)), monkeypatch.context() as patch:
        patch.setattr("psutil._pslinux.boot_time", lambda: boot_time + 1)
        assert is_in_use(str(tmp_path))


@pytest.mark.parametrize("system", ["another machine's start", None], ids=["container", "older version"])
def test_a_process_of_another_machine_or_container_of_the_same_name_is_not_taken_for_dead(
    tmp_path: Path, system: str | None
) -> None:
    write_lease(tmp_path, host=socket.gethostname(), system=system, pid=os.getpid())
    with pytest.raises(InUseError, match=f"process {os.getpid()} on {socket.gethostname()}"), lease(str(tmp_path)):
        pass
    with Lease(str(tmp_path), lambda: None, guarded=True):  # a sweep knows that it has died with its machine
        pass


def write_lease(folder: Path, host: str = "another-machine", system: str | None = None, pid: int = 1) -> None:
    owner = {"token": uuid.uuid4().hex, "host": host, "system": system, "pid": pid, "process_started": 1.0}
    (folder / "lease.json").write_text(json.dumps({**owner, "renewed": time.time()}))


def test_the_lease_of_another_machine_lapses_when_it_is_not_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lease(tmp_path)
    with pytest.raises(InUseError, match="process 1 on another-machine"), lease(str(tmp_path)):
        pass
    monkeypatch.setattr(
        lease_module, "LEASE_SECONDS", time.time() - json.loads((tmp_path / "lease.json").read_text())["renewed"]
    )
    with lease(str(tmp_path)):
        assert is_in_use(str(tmp_path))


def test_where_a_lease_above_guards_that_of_another_machine_is_taken_over_and_a_living_process_here_refused(
    tmp_path: Path,
) -> None:
    write_lease(tmp_path)
    with Lease(str(tmp_path), lambda: None, guarded=True):
        assert json.loads((tmp_path / "lease.json").read_text())["host"] == socket.gethostname()
    with (
        holder(str(tmp_path)),
        pytest.raises(InUseError, match=f"on {socket.gethostname()} is working"),
        Lease(str(tmp_path), lambda: None, guarded=True),
    ):
        pass


def test_the_lease_is_released_whatever_ends_the_work(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), lease(str(tmp_path)):
        raise KeyboardInterrupt
    assert not (tmp_path / "lease.json").exists()


@pytest.mark.parametrize("error", [OSError("the store is away"), ValueError("half a lease")])
def test_a_lease_that_cannot_be_deleted_hides_no_end_and_is_told(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(uri: str) -> None:
        raise error

    with lease(str(tmp_path)):
        monkeypatch.setattr(lease_module, "_read_lease", fail)
    assert "lease.json could not be deleted; it lapses by itself" in caplog.text and str(error) in caplog.text
    monkeypatch.undo()
    with pytest.raises(KeyError, match="of the block"), lease(str(tmp_path / "other")):
        monkeypatch.setattr(lease_module, "_read_lease", fail)
        raise KeyError("of the block")


def test_work_goes_on_until_the_lease_is_lost() -> None:
    lost = threading.Event()
    refuse_lost("folder", lost)
    lost.set()
    with pytest.raises(InUseError, match="another process has taken folder over"):
        refuse_lost("folder", lost)


def test_a_held_lease_is_renewed_and_its_loss_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 0.2)
    file, lost = tmp_path / "lease.json", threading.Event()
    with lease(str(tmp_path), lost.set):
        first = json.loads(file.read_text())["renewed"]
        wait_for(lambda: json.loads(file.read_text())["renewed"] > first)
        # A damaged lease is no loss and does not end the renewing; the thread may overwrite it before it reads it.
        wait_for(lambda: file.write_text("half a l") > 0 and "could not be renewed" in caplog.text)
        assert not lost.is_set()

        # Another process may overwrite our lease between two renewals; the next renewal reads whose it is.
        def take_over() -> bool:
            write_lease(tmp_path)
            return lost.wait(0.05)

        wait_for(take_over)
    assert json.loads(file.read_text())["host"] == "another-machine"
