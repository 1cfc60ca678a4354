"""Shared fixtures: Ray, an object store, an MLflow store, a browser, sources and finished runs."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, settings
from moto.server import ThreadedMotoServer
from support.faulty_store import FaultyStore, faulty_store
from support.finished_runs import Example, write_example
from support.mlflow_server import MlflowServer
from support.sources import tone, write_source
from support.terminal import Ended

from unfused_ray import cluster, lease, logs
from unfused_ray.cli.main import main
from unfused_ray.training.coordinator import Coordinator, RunProgress
from unfused_ray.training.worker import reporter

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# The tests' networks and tasks are so small that two threads wait for each other longer than they compute: on a busy
# machine the tests of an evaluation took four times as long. The last bits of results depend on the number of threads,
# so the processes that a test starts get one thread too.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
# No deadline: the time of an example depends on how busy the machine is.
settings.register_profile("suite", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")
# No other process asks for a test's folder at the same moment, so leases of this process need not settle.
lease.SETTLE_SECONDS = 0.0
# No test may reach a real object store's account. Set before Ray starts its workers, which inherit the environment.
os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_EC2_METADATA_DISABLED="true")
# Nor may a test write to the tracking store of this machine's other programs.
for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
    os.environ.pop(variable, None)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A local Ray cluster of two CPUs, whose workers can import what the tests define."""
    tests = Path(__file__).parent
    folders = [tests, *sorted({path.parent for path in tests.rglob("test_*.py")})]
    os.environ["PYTHONPATH"] = os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])
    with cluster.session(num_cpus=2):
        yield


@pytest.fixture
def cluster_has(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that sets the resources of the cluster's one node, and those its autoscaler may reach."""

    def set_resources(now: dict[str, float], most: object = None) -> None:
        monkeypatch.setattr(cluster.ray, "cluster_resources", lambda: now)
        monkeypatch.setattr(cluster.ray, "nodes", lambda: [{"Alive": True, "Resources": now}])
        monkeypatch.setattr(cluster, "is_one_machine", lambda: False)
        monkeypatch.setenv(cluster.AUTOSCALER, json.dumps(most) if most else "")

    return set_resources


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared source of 100 clips in three row groups, which no test changes."""
    folder = tmp_path_factory.mktemp("source")
    write_source(folder, [[40, 30], [30]])
    return folder


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """The folders of a finished pre-training and of a distillation of it; nothing was trained."""
    return write_example(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def object_store_address() -> Iterator[str]:
    """Host and port of an S3 server on loopback."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def object_store(object_store_address: str) -> str:
    """Options (``?…``) of S3 URIs on that server, which has a bucket ``bucket``."""
    # Make the bucket for every test: a test that simulates an account (tests/deploy/) makes moto forget all it holds.
    client = boto3.client("s3", endpoint_url=f"http://{object_store_address}", region_name="us-east-1")
    client.create_bucket(Bucket="bucket")
    return f"?endpoint_override={object_store_address}&scheme=http&region=us-east-1"


@pytest.fixture
def store(object_store: str, object_store_address: str) -> Iterator[FaultyStore]:
    """A proxy in front of the object store that can break requests; ``store.options`` are the options of its URIs."""
    host, port = object_store_address.split(":")
    with faulty_store((host, int(port))) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An SQLite store with its tables, shared by all tests: MLflow takes seconds to make the tables."""
    from mlflow import MlflowClient  # here: importing MLflow takes seconds

    uri = f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"
    MlflowClient(tracking_uri=uri).search_experiments()
    return uri


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory, tracking_uri: str) -> Iterator[MlflowServer]:
    """An MLflow server of the same store; a test that stops it must start it again."""
    server = MlflowServer(tmp_path_factory.mktemp("server"), tracking_uri)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The Chromium on PATH, else that of ``playwright install chromium``; its microphone plays a tone."""
    from playwright.sync_api import sync_playwright  # here: other tests run without Playwright

    heard = tmp_path_factory.mktemp("microphone") / "tone.wav"
    soundfile.write(heard, tone(3, 8 * 16_000), 16_000)
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    microphone = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=next(filter(None, map(shutil.which, names)), None),
            args=["--no-sandbox", *microphone, f"--use-file-for-fake-audio-capture={heard}"],
        )
        yield chromium
        chromium.close()


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Return a function that runs ``unfused-ray`` with its arguments, in this process, on a wide terminal."""
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setattr(logs, "configure", lambda: None)  # keep pytest's own logging

    def run(*arguments: str) -> Ended:
        capfd.readouterr()
        monkeypatch.setattr("sys.argv", ["unfused-ray", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return Ended(int(end.value.code or 0), *capfd.readouterr())

    return run


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that makes a run stop after a number of steps: 0 during its first full pass, -1 never."""
    monkeypatch.setattr(reporter, "REPORT_SECONDS", 0.0)
    report = Coordinator.report

    def arm(steps: int) -> None:
        def reporting(self: Coordinator, progress: RunProgress, metrics: Mapping[str, float] | None = None) -> str:
            if progress.step == steps:
                self.request_stop("the test")
            return report(self, progress, metrics)

        monkeypatch.setattr(Coordinator, "report", reporting)

    return arm
