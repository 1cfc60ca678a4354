"""Curves and clusters are drawn while a run trains, and logged to MLflow, within a share of the run's time."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from support.runs import tiny, tracked
from support.sources import write_source

from unfused_ray import api
from unfused_ray.figures import live
from unfused_ray.figures import run as pictures
from unfused_ray.figures.live import LivePictures
from unfused_ray.tracking.mlflow import TrackedRun
from unfused_ray.training.driver import monitor
from unfused_ray.training.worker import reporter


def test_a_run_that_trains_has_its_pictures_in_its_folder_and_in_mlflow(
    tmp_path: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporter, "REPORT_SECONDS", 0.0)
    monkeypatch.setattr(monitor, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(live, "_SHARE", 0)
    write_source(tmp_path / "source", [[40]])
    job = tiny(tmp_path / "source", tmp_path / "run", tracking_uri, epochs=20, checkpoint__pictures_every_minutes=1e-9)
    job = job.replace(stop_after=19)  # an unfinished run draws nothing at its end
    assert not api.pretrain(job).pictures
    assert {file.name for file in (tmp_path / "run" / "pictures").iterdir()} == {"health.png", "clusters.png"}
    client, found = MlflowClient(tracking_uri=tracking_uri), tracked(tracking_uri, job.output)
    assert {"health.png", "clusters.png"} <= {file.path for file in client.list_artifacts(found.info.run_id)}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock in seconds that stands still until a test moves it."""
    now = [0.0]
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.mark.parametrize(
    ("minutes", "drawn_at"), [(0.0, []), (60.0, []), (10.0, [600.0, 1205.0]), (1e-9, [1.0, 506.0, 1011.0])]
)
def test_a_drawing_waits_for_its_time_and_for_a_hundred_times_what_the_last_one_took(
    minutes: float, drawn_at: list[float], monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    found: list[float] = []

    def draw(uri: str) -> list[str]:
        found.append(clock[0])
        clock[0] += 5
        return []

    monkeypatch.setattr(pictures, "write_progress", draw)
    curves = LivePictures(lambda: TrackedRun("off", "", "run", "id"), "run", minutes)
    while clock[0] < 1500:
        clock[0] += 1
        curves.draw()
        curves.wait()
    assert found == drawn_at


def test_a_drawing_that_ends_in_a_fault_is_not_begun_anew_at_each_epoch(
    monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    begun: list[str] = []

    def fail(uri: str) -> list[str]:
        begun.append(uri)
        clock[0] += 1
        raise TypeError("a fault of the project")

    monkeypatch.setattr(pictures, "write_progress", fail)
    monkeypatch.setattr(threading, "excepthook", lambda hooked: None)  # pytest would warn
    curves = LivePictures(lambda: TrackedRun("off", "", "run", "id"), "run", 1e-9)
    for _ in range(3):
        clock[0] += 1
        curves.draw()
        curves.wait()
    assert begun == ["run"]


def test_what_cannot_be_drawn_is_said_and_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    curves = LivePictures(lambda: TrackedRun("off", "", "run", "id"), str(tmp_path), 1e-9)
    curves.draw()
    curves.wait()
    assert "could not be drawn this time" in caplog.text
