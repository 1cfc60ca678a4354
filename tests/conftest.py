"""Shared fixtures: one local Ray session for the whole suite, one object store, and what whole runs need."""

from __future__ import annotations

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

# Networks and tasks of tests are so small that two threads wait for each other longer than they compute: beside other
# work an evaluation's tests took four times as long. The last bits depend on it, here and in the processes of a test.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
# How long an example takes says how busy the machine is.
settings.register_profile("suite", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")
# Nobody else comes at the same moment for the folders of a test: leases of this process need not settle.
lease.SETTLE_SECONDS = 0.0
# Before Ray starts its workers, which inherit them: no test may reach a real object store's account.
os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_EC2_METADATA_DISABLED="true")
# Nor may it be tracked where this machine's other programs are.
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


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared source of 100 clips in three row groups, which no test changes."""
    folder = tmp_path_factory.mktemp("source")
    write_source(folder, [[40, 30], [30]])
    return folder


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """A finished pre-training and a distillation of it."""
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
    """Options of S3 URIs (``?…``) that lead to that server, which has a bucket ``bucket``."""
    # Made anew where it is missing: moto forgets all it has where a test simulates an account (tests/deploy/).
    client = boto3.client("s3", endpoint_url=f"http://{object_store_address}", region_name="us-east-1")
    client.create_bucket(Bucket="bucket")
    return f"?endpoint_override={object_store_address}&scheme=http&region=us-east-1"


@pytest.fixture
def store(object_store: str, object_store_address: str) -> Iterator[FaultyStore]:
    """A proxy before the object store, which may break requests; ``store.options`` leads to it."""
    host, port = object_store_address.split(":")
    with faulty_store((host, int(port))) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One SQLite file for all, with its tables: MLflow takes seconds to make them."""
    from mlflow import MlflowClient  # here: importing MLflow takes seconds

    uri = f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"
    MlflowClient(tracking_uri=uri).search_experiments()
    return uri


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory, tracking_uri: str) -> Iterator[MlflowServer]:
    """A server of the same store; whoever stops it starts it again."""
    server = MlflowServer(tmp_path_factory.mktemp("server"), tracking_uri)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A Chromium on PATH, else that of ``playwright install chromium``; its microphone hears a tone."""
    from playwright.sync_api import sync_playwright  # here: the other tests do without

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
    """Give ``unfused-ray`` these arguments, in this process, on a wide terminal."""
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setattr(logs, "configure", lambda: None)  # pytest's own logging stays

    def run(*arguments: str) -> Ended:
        capfd.readouterr()
        monkeypatch.setattr("sys.argv", ["unfused-ray", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return Ended(int(end.value.code or 0), *capfd.readouterr())

    return run


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Ask the run to stop once it has done so many steps; 0 is while it embeds every clip; no more for -1."""
    monkeypatch.setattr(reporter, "REPORT_SECONDS", 0.0)
    report = Coordinator.report

    def arm(steps: int) -> None:
        def reporting(self: Coordinator, progress: RunProgress, metrics: Mapping[str, float] | None = None) -> str:
            if progress.step == steps:
                self.request_stop("the test")
            return report(self, progress, metrics)

        monkeypatch.setattr(Coordinator, "report", reporting)

    return arm
