"""The tracking store of a run, and warnings of an unusable store: before a run, once during it, and at its end."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from alembic.script import ScriptDirectory
from mlflow import MlflowClient
from support.mlflow_server import MlflowServer
from support.runs import tiny, train
from support.sources import write_source

from unfused_ray.config import TrackingConfig
from unfused_ray.tracking import sender
from unfused_ray.tracking.mlflow import TrackedRun
from unfused_ray.tracking.sender import Tracker, said_once
from unfused_ray.tracking.store import (
    EXPERIMENT_VARIABLE,
    URI_VARIABLE,
    announce,
    describe,
    examine_store,
    experiment_name,
    explain,
    opened_by_one,
    sqlite_path,
    sqlite_uri,
    tracking_uri,
)

ODD = "a b?q#h%20ü'&+=x"
"""Name of a folder with characters that have a meaning in URIs or shells."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sender, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(sender, "SILENT_SECONDS", 0.05)
    for name in ("UNFUSED_RAY_HOME", URI_VARIABLE, EXPERIMENT_VARIABLE, "no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("UNFUSED_RAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")


@pytest.fixture
def copy(tracking_uri: str, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that copies the store of all tests, with another schema version if one is given."""

    def make(name: str, schema: str = "") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sqlite_path(tracking_uri), path)
        if schema:
            with sqlite3.connect(path) as database:
                database.execute("UPDATE alembic_version SET version_num = ?", (schema,))
        return path

    return make


@pytest.fixture
def deleted(tracking_uri: str) -> str:
    """Name of a deleted experiment."""
    name, client = f"deleted-{uuid.uuid4().hex}", MlflowClient(tracking_uri=tracking_uri)
    client.delete_experiment(client.create_experiment(name))
    return name


def older_schema() -> str:
    folder = Path(mlflow.__file__).parent / "store" / "db_migrations"
    _, older, *_ = ScriptDirectory(str(folder)).walk_revisions()
    return older.revision


def test_mlflows_own_variables_are_the_defaults_and_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert tracking_uri(TrackingConfig()) == f"sqlite:///{tmp_path}/home/mlflow.db"
    assert experiment_name(TrackingConfig()) == "unfused-ray"
    monkeypatch.setenv(URI_VARIABLE, f"sqlite:///{tmp_path}/theirs.db")
    monkeypatch.setenv(EXPERIMENT_VARIABLE, "theirs")
    taken = f"MLFLOW_TRACKING_URI=sqlite:///{tmp_path}/theirs.db, MLFLOW_EXPERIMENT_NAME=theirs"
    assert describe(TrackingConfig()) == f"sqlite:///{tmp_path}/theirs.db, experiment theirs ({taken})"
    ours = TrackingConfig(uri=f"sqlite:///{tmp_path}/ours.db", experiment="ours")
    assert describe(ours) == f"sqlite:///{tmp_path}/ours.db, experiment ours"
    assert describe(TrackingConfig(uri="off")) == "off"
    monkeypatch.setenv(URI_VARIABLE, "sqlite:///mlflow.db")
    with pytest.raises(ValueError, match=r"MLFLOW_TRACKING_URI=sqlite:///mlflow\.db is relative"):
        tracking_uri(TrackingConfig())


def test_a_run_is_tracked_where_the_environment_says_and_says_so(
    tmp_path: Path,
    tracking_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_source(tmp_path / "source", [[40, 30]])
    monkeypatch.setenv(URI_VARIABLE, tracking_uri)
    monkeypatch.setenv(EXPERIMENT_VARIABLE, name := uuid.uuid4().hex)
    with caplog.at_level(logging.INFO):
        assert train(tiny(tmp_path / "source", tmp_path / "run", "", epochs=1)).lost_metrics == 0
    assert f"tracked as the environment says: MLFLOW_TRACKING_URI={tracking_uri}, {EXPERIMENT_VARIABLE}={name}" in (
        caplog.text
    )
    client = MlflowClient(tracking_uri=tracking_uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None and len(client.search_runs([experiment.experiment_id])) == 1


def test_a_file_of_a_node_that_will_be_deleted_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    announce(TrackingConfig(uri="http://tracker:5000"), "3 nodes")
    announce(TrackingConfig(uri="off"), "3 nodes")
    announce(TrackingConfig(), "")
    assert not caplog.messages
    announce(TrackingConfig(), "3 nodes")
    (said,) = caplog.messages
    assert said.startswith(f"tracked in sqlite:///{tmp_path}/home/mlflow.db: it is a file of this node, and ends with")
    assert said.endswith("the cluster has 3 nodes: set tracking.uri to an MLflow server")


def test_an_experiment_that_is_deleted_is_said_once_with_the_remedy_and_what_was_lost(
    tmp_path: Path, tracking_uri: str, deleted: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert "mlflow experiments restore --experiment-id" in str(examine_store(tracking_uri, deleted))
    write_source(tmp_path / "source", [[40, 30]])
    started = time.monotonic()
    config = tiny(tmp_path / "source", tmp_path / "run", tracking_uri, tracking__experiment=deleted)
    status = train(config)
    assert status.state == "finished" and status.lost_metrics
    assert caplog.text.count("is deleted") == 1
    assert "tracking.experiment" in caplog.text
    assert f"{status.lost_metrics} metrics did not reach the tracking server" in caplog.text
    assert time.monotonic() - started < sender.CLOSE_SECONDS  # no waiting for an error that waiting cannot mend


def test_several_trackers_may_say_it_once_together(
    tracking_uri: str, deleted: str, caplog: pytest.LogCaptureFixture
) -> None:
    say = said_once()
    trackers = [Tracker(TrackedRun(tracking_uri, deleted, "name", str(i)), say) for i in range(3)]
    for tracker in trackers:
        tracker.log({"loss": 1.0}, 0)
    assert [tracker.close() for tracker in trackers] == [1, 1, 1]
    assert caplog.text.count("does not work") == 1


def test_a_database_whose_tables_another_process_is_making_is_waited_for(copy: Callable[..., Path]) -> None:
    path = copy("half/mlflow.db", older_schema())
    uri, results = sqlite_uri(str(path)), []
    (head,) = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations")).get_heads()
    looking = threading.Thread(target=lambda: results.append(examine_store(uri, "store")))
    with opened_by_one(uri):
        looking.start()
        looking.join(0.5)
        assert looking.is_alive()
        with sqlite3.connect(path) as database:
            database.execute("UPDATE alembic_version SET version_num = ?", (head,))
    looking.join(60)
    assert results == [None]


@pytest.mark.parametrize(
    ("schema", "found", "fix"),
    [
        (older_schema(), "an older MLflow", "mlflow db upgrade"),
        ("ffffffffffff", "a newer MLflow", "pip install --upgrade mlflow"),
    ],
)
def test_a_database_of_another_version_is_left_as_it_is(
    copy: Callable[..., Path], schema: str, found: str, fix: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = copy(f"{ODD}/mlflow.db", schema)
    before = path.read_bytes()
    problem = examine_store(sqlite_uri(str(path)), "store")
    assert problem is not None and found in problem.found and fix in problem.fix
    tracker = Tracker(TrackedRun(sqlite_uri(str(path)), "store", "name", "id"))
    tracker.log({"loss": 1.0}, 0)
    assert tracker.close() == 1
    assert caplog.text.count(found) == 1
    assert path.read_bytes() == before


def test_a_store_that_can_be_used_is_opened_and_one_that_is_missing_not_made(
    copy: Callable[..., Path], mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    assert examine_store(sqlite_uri(str(copy("fine.db"))), "new") is None
    assert examine_store(mlflow_server.uri, "new") is None
    assert examine_store(f"sqlite:///{tmp_path}/not/there.db", "new") is None
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize(
    ("uri", "found", "fix"),
    [
        ("http://127.0.0.1:9", "Max retries exceeded", "see that it can be reached"),
        ("file://{0}/mlruns", "folders of files", r"sqlite:////absolute/path/mlflow\.db"),
        ("{0}/mlruns", "folders of files", "mlflow migrate-filestore"),
        ("sqlite:///{0}/text", "not a database", r"give another tracking\.uri"),
        ("sqlite:///{0}/text/mlflow.db", "text", r"set tracking\.uri or UNFUSED_RAY_HOME"),
        ("postgresql://me:secret@127.0.0.1:9/x", "", r"give another tracking\.uri"),
    ],
)
def test_what_is_wrong_with_a_store_is_said_in_a_line_with_the_remedy(
    tmp_path: Path, uri: str, found: str, fix: str
) -> None:
    (tmp_path / "text").write_text("no database " * 100)
    problem = examine_store(uri.format(tmp_path), "store")
    assert problem is not None
    assert found in problem.found and "\n" not in str(problem) and "secret" not in str(problem)
    assert re.search(fix, problem.fix)


def test_a_server_of_this_machine_is_reached_although_a_proxy_is_set(
    mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "intranet.example")
    assert examine_store(mlflow_server.uri, "store") is None
    assert os.environ["no_proxy"] == "intranet.example,localhost,127.0.0.1,::1"


def test_curves_and_artefacts_lie_in_a_home_of_any_name(copy: Callable[..., Path], tmp_path: Path) -> None:
    path = copy(f"{ODD}/mlflow.db")
    uri = sqlite_uri(str(path))
    tracker = Tracker(TrackedRun(uri, ODD, "name", "id", config={"lr": 1}))
    tracker.log({"loss": 1.0}, 0)
    assert tracker.close() == 0
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(ODD)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics == {"loss": 1.0}
    assert [found.name for found in (tmp_path / ODD / "mlartifacts").rglob("*.json")] == ["config.json"]
    assert sorted(found.name for found in tmp_path.iterdir()) == [ODD]


def test_an_error_that_is_cut_within_a_password_does_not_show_its_beginning() -> None:
    error = RuntimeError(f"{'no answer ' * 27}from https://me:a-long-password@mlflow.example")
    assert "no answer" in explain(error).found
    assert "a-long" not in explain(error).found
