"""With a real MLflow server and an SQLite file, all logged metrics arrive, and training never waits."""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import load_dict
from mlflow.entities import Run
from support.mlflow_server import MlflowServer
from support.processes import wait_for

from unfused_ray.config import flatten
from unfused_ray.tracking import mlflow as tracked_module
from unfused_ray.tracking import sender as tracker_module
from unfused_ray.tracking.mlflow import CONFIG, RUN_TAG, TrackedRun, kept_id, log_results, metric_name
from unfused_ray.tracking.sender import Tracker
from unfused_ray.training.coordinator import Coordinator, RunProgress

EXPERIMENT = "tests"


@pytest.fixture
def database(tracking_uri: str) -> str:
    """URI of the SQLite store of all tests."""
    return tracking_uri


@pytest.fixture
def server(mlflow_server: MlflowServer) -> MlflowServer:
    return mlflow_server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tracker_module, "FLUSH_SECONDS", 0.1)
    monkeypatch.setattr(tracker_module, "SILENT_SECONDS", 0.1)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")  # for the tests' own requests; a tracker sets seconds
    monkeypatch.chdir(tmp_path)  # a test checks that nothing is left there


def tracker(uri: str, run_id: str, **fields: Any) -> Tracker:
    return Tracker(TrackedRun(uri, EXPERIMENT, "name", run_id, **fields))


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
    many = {f"p{i}": i for i in range(150)}  # more than one request may hold
    first = tracker(uri, run_id, params={"lr": 0.1, **many}, config={"a": [1]}, tags={"commit": "1"})
    for step in range(3):
        first.log({"loss": 1.0 / (step + 1), "epoch/loss": float(step)}, step)
    assert first.close("KILLED") == 0
    (run,) = runs(uri, run_id)
    assert run.info.status == "KILLED"
    assert run.info.run_name == "name"
    assert len(run.data.params) == 151
    assert run.data.params["lr"] == "0.1"

    second = tracker(uri, run_id, params={"lr": 0.2}, config={"a": [2]}, tags={"commit": "2"})
    for step in range(3, 1500):
        second.log({"loss": 1.0 / (step + 1)}, step)
    assert second.close() == 0
    (run,) = runs(uri, run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["lr"] == "0.1"
    assert run.data.tags["commit"] == "2"
    assert load_dict(f"{run.info.artifact_uri}/{CONFIG}") == {"a": [2]}
    assert curve(uri, run_id, "loss") == [(step, 1.0 / (step + 1)) for step in range(1500)]
    assert curve(uri, run_id, "epoch/loss") == [(0, 0.0), (1, 1.0), (2, 2.0)]


def test_a_resumed_run_logs_no_step_twice_and_fills_in_what_did_not_arrive(uri: str, run_id: str) -> None:
    first = tracker(uri, run_id)
    for step in range(10):
        first.log({"loss": 1.0} | ({"agreement": 1.0} if step < 7 else {}), step)  # 7 to 9 have not arrived
    assert first.close("FAILED") == 0

    second = tracker(uri, run_id)
    for step in range(5, 15):  # from the checkpoint after step 5
        second.log({"loss": 2.0, "agreement": 2.0, "epoch/loss": 2.0}, step)
    assert second.close() == 0
    assert curve(uri, run_id, "loss") == [(step, 1.0 if step < 10 else 2.0) for step in range(15)]
    assert curve(uri, run_id, "agreement") == [(step, 1.0 if step < 7 else 2.0) for step in range(15)]
    assert curve(uri, run_id, "epoch/loss") == [(step, 2.0) for step in range(5, 15)]


def test_a_worker_group_that_begins_again_logs_no_step_twice(database: str, run_id: str) -> None:
    coordinator = Coordinator(TrackedRun(database, EXPERIMENT, "name", run_id, system_metrics=True))
    for first, last, value in ((0, 10, 1.0), (5, 15, 2.0)):
        coordinator.begin_attempt(first)
        for step in range(first, last):
            coordinator.report(RunProgress("training", step), {"loss": value})
    assert coordinator.close("FINISHED") == 0
    assert curve(database, run_id, "loss") == [(step, 1.0 if step < 10 else 2.0) for step in range(15)]
    assert curve(database, run_id, "system/cpu_utilization_percentage")


def test_repeated_results_are_sent_if_the_newest_is_to_be_shown(database: str, run_id: str) -> None:
    for value in (1.0, 2.0):
        tracked = Tracker(TrackedRun(database, EXPERIMENT, "name", run_id), keeps_first=False)
        tracked.log({"accuracy": value}, 0)
        assert tracked.close() == 0
    assert runs(database, run_id)[0].data.metrics == {"accuracy": 2.0}


def test_results_of_a_run_that_has_ended_are_added_to_its_mlflow_run(
    uri: str, run_id: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture = tmp_path / "map.png"
    picture.write_bytes(b"a picture")
    assert tracker(uri, run_id).close() == 0
    tracked = TrackedRun(uri, EXPERIMENT, "name", run_id)
    assert log_results(tracked, [str(picture)], {"encoder": "s3://bucket/encoder"})
    (run,) = runs(uri, run_id)
    assert run.data.tags["unfused_ray.encoder"] == "s3://bucket/encoder"
    assert [file.path for file in MlflowClient(tracking_uri=uri).list_artifacts(run.info.run_id)] == ["map.png"]
    assert not log_results(TrackedRun(uri, EXPERIMENT, "name", "another"), [str(picture)], {})
    assert f"the results did not reach {uri}: there is no MLflow run of run another" in caplog.text


def test_mlflows_environment_is_set_before_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare() -> None:
        raise KeyboardInterrupt("in time")

    monkeypatch.setitem(sys.modules, "mlflow", None)  # so that importing it fails
    monkeypatch.setattr(tracked_module, "prepare_mlflow", prepare)
    with pytest.raises(KeyboardInterrupt, match="in time"):
        log_results(TrackedRun("sqlite:////nowhere.db", EXPERIMENT, "name", "id"), [], {})


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


def test_a_run_is_shown_under_its_parent_although_that_comes_later(uri: str, run_id: str) -> None:
    child = tracker(uri, run_id, parent=f"{run_id}-parent")
    child.log({"loss": 1.0}, 0)
    wait_for(lambda: bool(runs(uri, run_id)))
    assert tracker(uri, f"{run_id}-parent").close() == 0
    (parent,) = runs(uri, f"{run_id}-parent")
    wait_for(lambda: runs(uri, run_id)[0].data.tags.get("mlflow.parentRunId") == parent.info.run_id)
    assert child.close() == 0


def test_what_is_known_only_at_the_end_is_said_while_others_go_on(database: str, run_id: str) -> None:
    ended, other = tracker(database, run_id), tracker(database, f"{run_id}-other")
    ended.end("FINISHED", {"stopped": "epoch 2"})
    other.log({"loss": 1.0}, 0)
    assert ended.wait(60.0) == other.close() == 0
    (run,) = runs(database, run_id)
    assert (run.info.status, run.data.tags["stopped"]) == ("FINISHED", "epoch 2")


def test_cpu_and_memory_are_logged_at_the_step_that_the_run_has_reached(database: str, run_id: str) -> None:
    tracked = tracker(database, run_id, system_metrics=True)
    tracked.log({"loss": 1.0}, 7)
    assert tracked.close() == 0
    for name in ("cpu_utilization_percentage", "system_memory_usage_megabytes", "system_memory_usage_percentage"):
        samples = curve(database, run_id, f"system/{name}")
        assert samples and all(step == 7 and value >= 0 for step, value in samples)


def test_cpu_and_memory_of_a_resumed_run_are_not_logged_at_its_beginning(database: str, run_id: str) -> None:
    """Workers may take minutes to start before they report a step."""
    tracked = TrackedRun(database, EXPERIMENT, "name", run_id, system_metrics=True)
    coordinator = Coordinator(tracked, first_step=500)
    assert coordinator.close("KILLED") == 0
    assert {step for step, _ in curve(database, run_id, "system/cpu_utilization_percentage")} == {500}


def test_a_server_that_goes_away_and_comes_back_gets_everything_of_several_writers(
    server: MlflowServer, run_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Four runs log all the time; metrics logged while the server is away arrive too, each once."""
    trackers = [tracker(server.uri, f"{run_id}-{i}") for i in range(4)]
    steps = [0] * len(trackers)
    enough = threading.Event()

    def write(number: int) -> None:
        while not enough.wait(0.002):
            trackers[number].log({"loss": float(number)}, steps[number])
            steps[number] += 1

    threads = [threading.Thread(target=write, args=(i,)) for i in range(len(trackers))]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: all(runs(server.uri, f"{run_id}-{i}") for i in range(len(trackers))))
        server.stop()
        ended = tracker(server.uri, f"{run_id}-ended")
        ended.log({"loss": 1.0}, 0)
        ended.end()
        with caplog.at_level(logging.WARNING):
            before = list(steps)
            wait_for(lambda: caplog.text.count("tracking at") >= len(trackers))  # all have noticed
            wait_for(lambda: all(now > then + 50 for now, then in zip(steps, before, strict=True)))
    finally:
        enough.set()
        for thread in threads:
            thread.join()
        server.start()  # not sooner: the amount to send must not depend on the time of a start
    assert ended.wait(60.0) == 0
    assert runs(server.uri, f"{run_id}-ended")[0].info.status == "FINISHED"
    for number, each in enumerate(trackers):
        assert each.close() == 0
        assert curve(server.uri, f"{run_id}-{number}", "loss") == [(i, float(number)) for i in range(steps[number])]
    said = [caplog.text.count(text) for text in ("does not work", "works again")]
    assert said == [len(trackers) + 1] * 2  # each says it once


def test_a_server_that_never_answers_costs_seconds_and_the_lost_are_counted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts and never answers
        tracked = tracker(f"http://127.0.0.1:{silent.getsockname()[1]}", "lost")
        tracked.log({"loss": 1.0, "agreement": 0.5}, 0)
        started = time.monotonic()
        assert tracked.close(timeout=1.0) == 2
        assert time.monotonic() - started < 5


def test_metrics_on_their_way_to_a_server_that_falls_silent_are_counted_as_lost(
    database: str, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def hang(client: MlflowClient, run_id: str, metrics: list[object] = (), **_: object) -> None:
        if metrics:
            started.append(len(metrics))
            time.sleep(60)

    monkeypatch.setattr(MlflowClient, "log_batch", hang)
    tracked = tracker(database, run_id)
    tracked.log({"loss": 1.0}, 0)
    wait_for(lambda: bool(started))
    tracked.log({"loss": 2.0}, 1)
    assert tracked.close(timeout=0.2) == 2


def test_the_oldest_metrics_make_room_and_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_module, "BUFFERED_METRICS", 10)
    tracked = tracker("http://127.0.0.1:9", "full")  # no server listens
    for step in range(25):
        tracked.log({"loss": 1.0}, step)
    assert tracked.close(timeout=0.2) == 25


def test_repeated_steps_are_lost_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for room, repeats in ((100, range(5, 15)), (3, range(5, 15)), (100, range(10))):
        monkeypatch.setattr(tracker_module, "BUFFERED_METRICS", room)
        tracked = tracker("http://127.0.0.1:9", "repeated")  # no server listens
        for step in (*range(10), *repeats):  # a worker group that begins again
            tracked.log({"loss": 1.0}, step)
        assert tracked.close(timeout=0.2) == max(repeats) + 1


def test_steps_that_mlflow_has_are_not_counted_as_lost(
    database: str, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "MAX_BATCH", 2)
    first = tracker(database, run_id)
    for step in range(10):
        first.log({"loss": 1.0, "agreement": 1.0}, step)
    assert first.close() == 0
    log_batch, refused = MlflowClient.log_batch, []

    def refuse(client: MlflowClient, run_id: str, metrics: list[object] = (), **others: Any) -> None:
        if metrics:
            refused.append(metrics)
            raise ConnectionError("gone")
        log_batch(client, run_id, **others)

    monkeypatch.setattr(MlflowClient, "log_batch", refuse)
    second = tracker(database, run_id)
    for step in range(5, 12):
        second.log({"loss": 2.0}, step)
    for step in range(5, 9):
        second.log({"agreement": 2.0}, step)
    wait_for(lambda: bool(refused))
    assert second.close(timeout=0.2) == 2


def test_parameters_that_were_cut_off_are_sent_later(
    database: str, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_batch, failures = MlflowClient.log_batch, iter([ConnectionError("gone")])

    def fail_once(client: MlflowClient, *args: object, **kwargs: object) -> None:
        for failure in failures:
            raise failure
        log_batch(client, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "log_batch", fail_once)
    tracked = tracker(database, run_id, params={"lr": 0.1})
    wait_for(lambda: bool(runs(database, run_id) and runs(database, run_id)[0].data.params))
    assert tracked.close() == 0
    assert runs(database, run_id)[0].data.params == {"lr": "0.1"}


def test_metrics_that_made_room_are_counted_in_mlflow_too(
    database: str, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "BUFFERED_METRICS", 10)
    tracked = tracker(database, run_id)
    tracked.log({f"m{i}": 1.0 for i in range(12)}, 0)
    assert tracked.close() == 2
    assert runs(database, run_id)[0].data.tags["unfused_ray.lost_metrics"] == "2"


def test_metrics_arrive_where_artefacts_cannot(
    database: str, run_id: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(client: MlflowClient, *args: object) -> None:
        raise PermissionError("no access to the bucket")

    monkeypatch.setattr(MlflowClient, "log_dict", refuse)
    tracked = tracker(database, run_id, config={"a": 1})
    tracked.log({"loss": 1.0}, 0)
    assert tracked.close() == 0
    assert "the configuration did not reach" in caplog.text
    (run,) = runs(database, run_id)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"loss": 1.0})


def test_credentials_of_uris_stay_at_home(database: str, run_id: str) -> None:
    config = {"data": ["s3://me:sec/ret@bucket/a"], "tracking": {"uri": "https://host/?sig=secret"}}
    tags = {"folder": "s3://me:secret@bucket/run", "data": json.dumps([{"uri": config["data"][0], "checksum": "0"}])}
    tracked = tracker(database, run_id, config=config, params=flatten(config), tags=tags)
    tracked.end(tags={"message": "cannot read http://me:secret@host/a"})
    assert tracked.wait(60.0) == 0
    log_results(TrackedRun(database, EXPERIMENT, "name", run_id), [], {"encoder": "s3://me:secret@bucket/encoder"})
    (run,) = runs(database, run_id)
    assert run.data.params == {"data": "['s3://…@bucket/a']", "tracking.uri": "https://host/?sig=…"}
    assert load_dict(f"{run.info.artifact_uri}/{CONFIG}")["data"] == ["s3://…@bucket/a"]
    assert run.data.tags["folder"] == "s3://…@bucket/run"
    assert json.loads(run.data.tags["data"]) == [{"uri": "s3://…@bucket/a", "checksum": "0"}]
    assert not [value for value in run.data.tags.values() if "secret" in value]


def test_a_folder_keeps_its_id(tmp_path: Path) -> None:
    first, second = kept_id(str(tmp_path / "a")), kept_id(str(tmp_path / "b"))
    assert first == kept_id(str(tmp_path / "a")) != second


def test_rows_of_any_script_keep_names_of_their_own_that_mlflow_takes(database: str, run_id: str) -> None:
    rows = ["基线", "学生", "élève", "maître", "α = 0.5", "a+b"]
    names = [metric_name(f"{row}/drums/headline") for row in rows]
    sent = tracker(database, run_id)
    sent.log(dict.fromkeys(names, 0.5), 0)
    assert sent.close() == 0
    (found,) = runs(database, run_id)
    assert set(found.data.metrics) >= set(names)
    assert (len(set(names)), names[0], names[-1]) == (len(rows), "基线/drums/headline", "a_b/drums/headline")


def test_names_that_mlflow_refuses_keep_no_other_metric_from_it(database: str, run_id: str) -> None:
    """MLflow refuses a batch whole, and was sent it again and again."""
    rows = ["x" * 300, "x" * 301, "学" * 300, "..", ".a"]
    names = [metric_name(f"{row}/drums/headline/{bound}") for row in rows for bound in ("low", "high")]
    sent = Tracker(TrackedRun(database, EXPERIMENT, "n" * 300, run_id))
    sent.log(dict.fromkeys(names, 0.5) | {"loss": 1.0}, 0)
    assert sent.close() == 0
    (found,) = runs(database, run_id)
    assert set(found.data.metrics) == {*names, "loss"} and len(set(names)) == 2 * len(rows)
    assert names[1].startswith("xxx") and names[1].endswith("x/drums/headline/high")
    assert found.info.run_name == "n" * 250  # PostgreSQL takes no more
