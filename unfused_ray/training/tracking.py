"""Curves and parameters of a run, sent to MLflow from one thread that never holds training up.

Losing the server stops nothing: what is logged meanwhile waits in a bounded buffer, is sent when the server is back,
and is counted where the buffer overflows. A resumed run continues its MLflow run, found by its tag.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unfused_ray import storage
from unfused_ray.config import TrackingConfig
from unfused_ray.training.run import local_home

logger = logging.getLogger(__name__)

SQLITE = "sqlite:///"
"""Beginning of the URI of an SQLite file; its absolute path follows."""
RUN_TAG = "unfused_ray.run"
MAX_BATCH = 1000
"""Metrics of one request: MLflow's limit."""
MAX_PARAMS = 100
"""Parameters of one request: MLflow's limit."""
BUFFERED_METRICS = 100_000
FLUSH_SECONDS = 5.0
SILENT_SECONDS = 60.0
"""A run with nothing to log is opened after so long: importing MLflow takes seconds from processes that start."""


def tracking_uri(config: TrackingConfig) -> str:
    """Where MLflow is: as configured, or the SQLite file in <home>.

    Raises:
        ValueError: an SQLite file is named relative to the working directory.
    """
    uri = config.uri or f"{SQLITE}{storage.join(local_home(), 'mlflow.db')}"
    if uri.startswith(SQLITE) and not uri.startswith(SQLITE + "/"):
        raise ValueError(
            f"tracking.uri={uri} is relative, and would mean another file wherever it is opened: "
            f"give {SQLITE}/absolute/path/mlflow.db"
        )
    return uri


def metric_name(text: str) -> str:
    """``text`` with whatever MLflow does not take in the name of a metric replaced."""
    return re.sub(r"[^A-Za-z0-9_\-. /:]", "_", text)


class Tracker:
    """One MLflow run.

    Args:
        uri: MLflow tracking URI.
        experiment: its name; created where it does not exist.
        run_name: shown in MLflow.
        run_id: the project's id of the run, by which a resumed run finds its MLflow run.
        params: logged once, at the start of the MLflow run; it keeps the values it was started with.
    """

    def __init__(self, uri: str, experiment: str, run_name: str, run_id: str, params: Mapping[str, Any]) -> None:
        self._uri, self._experiment, self._run_name, self._run_id = uri, experiment, run_name, run_id
        self._params = {key: str(value)[:6000] for key, value in params.items()}
        self._buffer: deque[tuple[str, float, int, int]] = deque()
        self._sending: list[tuple[str, float, int, int]] = []
        """Taken from the buffer, not yet acknowledged."""
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._wanted = threading.Event()
        """Set once there is something to send."""
        self._lost = 0
        self._mlflow_run: str | None = None
        self._status = "FINISHED"
        self._thread = threading.Thread(target=self._send_forever, name="tracker", daemon=True)
        self._thread.start()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Queue metrics of a step; returns at once."""
        now = int(time.time() * 1000)
        with self._lock:
            self._buffer.extend((key, float(value), now, step) for key, value in metrics.items())
            while len(self._buffer) > BUFFERED_METRICS:
                self._buffer.popleft()
                self._lost += 1
        self._wanted.set()

    def close(self, status: str = "FINISHED", timeout: float = 30.0) -> int:
        """Send what is left and end the MLflow run; gives up after ``timeout`` seconds.

        Args:
            status: MLflow's word for how it ended: FINISHED, FAILED or KILLED.
            timeout: seconds.

        Returns:
            How many metrics were lost.
        """
        self._status = status
        self._closing.set()
        self._wanted.set()
        self._thread.join(timeout)
        with self._lock:
            lost = self._lost + len(self._buffer) + len(self._sending)
        if lost:
            logger.warning("%d metrics did not reach %s", lost, self._uri)
        return lost

    def _send_forever(self) -> None:
        # This process may wait for MLflow; its own retries would hide for minutes that the server is gone.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        failures = 0
        self._wanted.wait(SILENT_SECONDS)
        while True:
            closing = self._closing.wait(min(FLUSH_SECONDS * 2**failures, 60.0))
            try:
                self._send(final=closing)
                failures = 0
            except Exception as error:  # noqa: BLE001 - whatever the tracking store raises, training goes on
                failures = min(failures + 1, 4)
                logger.warning("tracking at %s failed, %d metrics wait: %s", self._uri, len(self._buffer), error)
            if closing:
                return

    def _send(self, final: bool) -> None:
        from mlflow import MlflowClient  # here: importing MLflow takes seconds, and is this thread's business
        from mlflow.entities import Metric

        if self._uri.startswith(SQLITE):
            Path(self._uri.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
        client = MlflowClient(tracking_uri=self._uri)
        if self._mlflow_run is None:
            self._mlflow_run = self._open(client)
        while self._take_batch():
            client.log_batch(self._mlflow_run, metrics=[Metric(*metric) for metric in self._sending])
            self._sending = []
        if final:
            client.set_terminated(self._mlflow_run, self._status)

    def _take_batch(self) -> bool:
        """Fill what is being sent, unless the last time it did not arrive; whether there is anything."""
        with self._lock:
            self._sending = self._sending or [self._buffer.popleft() for _ in range(min(MAX_BATCH, len(self._buffer)))]
        return bool(self._sending)

    def _open(self, client: Any) -> str:
        """The MLflow run of this run: the one it had, or a new one."""
        from mlflow.entities import Param

        found = client.get_experiment_by_name(self._experiment)
        experiment_id = (
            found.experiment_id
            if found
            else client.create_experiment(self._experiment, artifact_location=_artifact_location(self._uri))
        )
        run = _find(client, experiment_id, self._run_id)
        if run is not None:
            client.update_run(run.info.run_id, status="RUNNING")
        else:
            run = client.create_run(experiment_id, run_name=self._run_name, tags={RUN_TAG: self._run_id})
        params = [Param(key, value) for key, value in self._params.items() if key not in run.data.params]
        for first in range(0, len(params), MAX_PARAMS):
            client.log_batch(run.info.run_id, params=params[first : first + MAX_PARAMS])
        return run.info.run_id


def log_results(
    uri: str, experiment: str, run_id: str, files: Sequence[str], places: Mapping[str, str], folder: str | None = None
) -> bool:
    """Add to the MLflow run of a run that has ended its pictures, and where its results are.

    Args:
        uri, experiment, run_id: as of its :class:`Tracker`.
        files: URIs of files to keep as artefacts.
        places: tags, by name.
        folder: of the run's artefacts that the files go to; None is the topmost.

    Returns:
        Whether they arrived; where not, a warning says why.
    """
    from mlflow import MlflowClient  # here: importing MLflow takes seconds

    try:
        client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(experiment)
        run = _find(client, found.experiment_id, run_id) if found else None
        if run is None:
            raise LookupError(f"there is no MLflow run of run {run_id}")
        for name, value in places.items():
            client.set_tag(run.info.run_id, f"unfused_ray.{name}", value)
        with tempfile.TemporaryDirectory() as copies:
            for file in files:
                path = Path(copies, storage.name(file))
                path.write_bytes(storage.read_bytes(file))
                client.log_artifact(run.info.run_id, str(path), folder)
    except Exception as error:  # noqa: BLE001 - whatever the tracking store raises, the run itself is safe
        logger.warning("the pictures did not reach %s: %s", uri, error)
        return False
    return True


def _find(client: Any, experiment_id: str, run_id: str) -> Any | None:
    runs = client.search_runs([experiment_id], f"tags.`{RUN_TAG}` = '{run_id}'", max_results=1)
    return runs[0] if runs else None


def _artifact_location(uri: str) -> str | None:
    """Artefacts lie beside an SQLite file; by default MLflow puts them in the working directory of whoever asks."""
    path = uri.removeprefix(SQLITE)
    return None if path == uri else str(Path(path).parent / "mlartifacts")


def flat_params(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration as one level, with dots in the names."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flat_params(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
