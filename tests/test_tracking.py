"""The tracker against a real MLflow server and an SQLite file: what is logged arrives, and training never waits."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from unfused_ray.training import tracking
from unfused_ray.training.tracking import RUN_TAG, Tracker, flat_params, log_results

EXPERIMENT = "tests"


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


class Server:
    """An MLflow server on loopback that can be stopped and started again."""

    def __init__(self, folder: Path, database: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._folder, self._database = folder, database
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = {
            "--host": "127.0.0.1",
            "--port": str(self._port),
            "--workers": "1",
            "--backend-store-uri": self._database,
            "--artifacts-destination": str(self._folder / "artifacts"),
        }
        command = [sys.executable, "-m", "mlflow", "server", *(part for option in options.items() for part in option)]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # starts in two thirds of the time
            )
        wait_for(self._answers)

    def stop(self) -> None:
        if self._process is not None:
            subprocess.run(["kill", "--", f"-{self._process.pid}"], check=True)  # with the process that serves
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1) as answer:
                return answer.status == 200
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One SQLite file for all: MLflow takes seconds to make its tables."""
    return f"sqlite:///{tmp_path_factory.mktemp('database')}/tracking.db"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"), database)
    server.start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tracking, "FLUSH_SECONDS", 0.1)
    monkeypatch.setattr(tracking, "SILENT_SECONDS", 0.1)
    monkeypatch.chdir(tmp_path)  # nothing may be left there


def tracker(uri: str, run_id: str, **params: object) -> Tracker:
    return Tracker(uri, EXPERIMENT, run_name="name", run_id=run_id, params=params)


def runs(uri: str, run_id: str) -> list[Run]:
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return client.search_runs([experiment.experiment_id], f"tags.`{RUN_TAG}` = '{run_id}'") if experiment else []


def curve(uri: str, run_id: str, metric: str) -> list[tuple[int, float]]:
    (run,) = runs(uri, run_id)
    history = MlflowClient(tracking_uri=uri).get_metric_history(run.info.run_id, metric)
    return sorted((point.step, point.value) for point in history)


@pytest.fixture(params=["SQLite file", "server"])
def uri(request: pytest.FixtureRequest, database: str) -> str:
    return database if request.param == "SQLite file" else request.getfixturevalue("server").uri


@pytest.fixture
def run_id() -> str:
    return uuid.uuid4().hex


def test_curves_and_parameters_arrive_and_a_resumed_run_goes_on_in_its_mlflow_run(uri: str, run_id: str) -> None:
    first = tracker(uri, run_id, lr=0.1, **{f"p{i}": i for i in range(150)})  # more than a request may hold
    for step in range(3):
        first.log({"loss": 1.0 / (step + 1), "epoch/loss": float(step)}, step)
    assert first.close("KILLED") == 0
    (run,) = runs(uri, run_id)
    assert run.info.status == "KILLED"
    assert run.info.run_name == "name"
    assert len(run.data.params) == 151
    assert run.data.params["lr"] == "0.1"

    second = tracker(uri, run_id, lr=0.2)
    for step in range(3, 1500):
        second.log({"loss": 1.0 / (step + 1)}, step)
    assert second.close() == 0
    (run,) = runs(uri, run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["lr"] == "0.1"
    assert curve(uri, run_id, "loss") == [(step, 1.0 / (step + 1)) for step in range(1500)]
    assert curve(uri, run_id, "epoch/loss") == [(0, 0.0), (1, 1.0), (2, 2.0)]


def test_results_of_a_run_that_has_ended_are_added_to_its_mlflow_run(
    uri: str, run_id: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture = tmp_path / "map.png"
    picture.write_bytes(b"a picture")
    assert tracker(uri, run_id).close() == 0
    assert log_results(uri, EXPERIMENT, run_id, [str(picture)], {"encoder": "s3://bucket/encoder"})
    (run,) = runs(uri, run_id)
    assert run.data.tags["unfused_ray.encoder"] == "s3://bucket/encoder"
    assert [file.path for file in MlflowClient(tracking_uri=uri).list_artifacts(run.info.run_id)] == ["map.png"]
    assert not log_results(uri, EXPERIMENT, "another", [str(picture)], {})
    assert "no MLflow run of run another" in caplog.text


def test_another_run_gets_an_mlflow_run_of_its_own_and_nothing_is_left_in_the_working_directory(
    uri: str, tmp_path: Path
) -> None:
    run_ids = [uuid.uuid4().hex for _ in range(2)]
    for run_id in run_ids:
        assert tracker(uri, run_id).close() == 0
    first, second = (runs(uri, run_id) for run_id in run_ids)
    assert len(first) == len(second) == 1
    assert first[0].info.run_id != second[0].info.run_id
    assert not list(tmp_path.iterdir())


def test_a_server_that_goes_away_and_comes_back_gets_everything(
    server: Server, run_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    tracked = tracker(server.uri, run_id)
    tracked.log({"loss": 0.0}, 0)
    wait_for(lambda: bool(runs(server.uri, run_id) and curve(server.uri, run_id, "loss")))
    server.stop()
    with caplog.at_level(logging.WARNING):
        for step in range(1, 2500):
            tracked.log({"loss": float(step)}, step)
        wait_for(lambda: "tracking at" in caplog.text)  # it has noticed
    server.start()
    assert tracked.close() == 0
    assert curve(server.uri, run_id, "loss") == [(step, float(step)) for step in range(2500)]


def test_a_server_that_never_answers_costs_seconds_and_the_lost_are_counted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        tracked = tracker(f"http://127.0.0.1:{silent.getsockname()[1]}", "lost")
        tracked.log({"loss": 1.0, "agreement": 0.5}, 0)
        started = time.monotonic()
        assert tracked.close(timeout=1.0) == 2
        assert time.monotonic() - started < 5


def test_metrics_on_their_way_to_a_server_that_falls_silent_are_counted_as_lost(
    database: str, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def hang(client: MlflowClient, run_id: str, metrics: list[object] = (), params: list[object] = ()) -> None:
        started.append(len(metrics))
        time.sleep(60)

    monkeypatch.setattr(MlflowClient, "log_batch", hang)
    tracked = tracker(database, run_id)
    tracked.log({"loss": 1.0}, 0)
    wait_for(lambda: bool(started))
    tracked.log({"loss": 2.0}, 1)
    assert tracked.close(timeout=0.2) == 2


def test_the_oldest_metrics_make_room_and_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "BUFFERED_METRICS", 10)
    tracked = tracker("http://127.0.0.1:9", "full")  # nobody listens
    for step in range(25):
        tracked.log({"loss": 1.0}, step)
    assert tracked.close(timeout=10.0) == 25


def test_parameters_that_were_cut_off_are_sent_later(
    database: str, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_batch, failures = MlflowClient.log_batch, iter([ConnectionError("gone")])

    def fail_once(client: MlflowClient, *args: object, **kwargs: object) -> None:
        for failure in failures:
            raise failure
        log_batch(client, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "log_batch", fail_once)
    tracked = tracker(database, run_id, lr=0.1)
    wait_for(lambda: bool(runs(database, run_id) and runs(database, run_id)[0].data.params))
    assert tracked.close() == 0
    assert runs(database, run_id)[0].data.params == {"lr": "0.1"}


def test_a_nested_configuration_becomes_dotted_names() -> None:
    assert flat_params({"a": 1, "b": {"c": {"d": (1, 2)}, "e": None}}) == {"a": 1, "b.c.d": (1, 2), "b.e": None}
