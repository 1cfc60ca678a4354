"""Bounded Ray tasks: tasks that still run when the caller stops end at once, and failures are reported."""

import os
import time
import uuid
from pathlib import Path

import pytest
import ray
from support.processes import wait_for

from unfused_ray.data.parts import ray_tasks
from unfused_ray.data.parts.executor import TaskEndedError
from unfused_ray.data.parts.ray_tasks import RayTasks

pytestmark = pytest.mark.usefixtures("ray_session")


def deaf(folder: Path, seconds: float) -> float:
    """Sleep, and carry on when interrupted, as a C library does that calls back into Python."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            (folder / f"{seconds}.running").touch()
            time.sleep(0.001)
        except KeyboardInterrupt:
            end = 0
    (folder / f"{seconds}.written").touch()
    return seconds


def failing() -> None:
    raise OSError("no space left")


def dying(folder: Path) -> None:
    (folder / uuid.uuid4().hex).touch()
    os._exit(1)


def test_a_task_whose_process_dies_each_time_is_told_with_what_may_help(tmp_path: Path) -> None:
    said = r"ended from outside again and again, .*\(WorkerCrashedError: .*larger nodes, or smaller shards"
    with RayTasks().run(dying, [(tmp_path,)]) as results, pytest.raises(TaskEndedError, match=said):
        list(results)
    assert len(list(tmp_path.iterdir())) == 4


def test_results_come_with_the_numbers_of_their_arguments(tmp_path: Path) -> None:
    seconds = [0.001 * number for number in range(12)]
    with RayTasks().run(deaf, ((tmp_path, value) for value in seconds)) as results:
        assert sorted(results) == list(enumerate(seconds))


def test_a_task_that_still_runs_when_the_caller_stops_writes_nothing(tmp_path: Path) -> None:
    stop_while_running(tmp_path, 100.0)
    stopped = time.time_ns()
    time.sleep(0.3)
    assert (tmp_path / "100.0.running").stat().st_mtime_ns <= stopped
    assert not (tmp_path / "100.0.written").exists()


def stop_while_running(folder: Path, seconds: float) -> None:
    with pytest.raises(KeyboardInterrupt), RayTasks().run(deaf, [(folder, 0.0), (folder, seconds)]) as results:
        next(results)
        wait_for((folder / f"{seconds}.running").exists)
        raise KeyboardInterrupt


def test_a_kill_that_is_lost_is_said_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel, calls = ray.cancel, []

    def lose_the_first(reference: ray.ObjectRef, **options: bool) -> None:
        calls.append(reference)
        if len(calls) > 1:
            cancel(reference, **options)

    monkeypatch.setattr(ray, "cancel", lose_the_first)
    stop_while_running(tmp_path, 100.0)
    assert len(calls) > 1
    assert not ray.wait(calls[:1], timeout=0)[1]


def test_what_cannot_be_killed_holds_nobody_for_long_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cancel, alive = ray.cancel, set()
    monkeypatch.setattr(ray, "cancel", lambda reference, **options: alive.add(reference))
    monkeypatch.setattr(ray_tasks, "KILL_SECONDS", 1.5)
    stop_while_running(tmp_path, 100.0)
    assert "1 tasks have not ended 1.5 s after Ray was to kill them" in caplog.text
    for reference in alive:
        cancel(reference, force=True)


def test_a_failed_task_raises_what_it_raised_and_is_not_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled: list[ray.ObjectRef] = []
    monkeypatch.setattr(ray, "cancel", lambda reference, **options: cancelled.append(reference))
    with pytest.raises(OSError, match="no space left"), RayTasks().run(failing, [()]) as results:
        next(results)
    assert not cancelled
