"""Sends metrics and parameters of a run to MLflow from one thread, which never delays training.

If the server is lost, nothing stops: metrics wait in a bounded buffer and are sent when the server is back. They are
counted as lost if the buffer overflows or the run ends first. A resumed run continues its MLflow run, which is found by
the run's id, kept in its folder. So a request whose answer was lost makes no second MLflow run either. Steps that it
repeats, because they come after its checkpoint, are not sent again: MLflow can neither replace nor delete a point.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import psutil

from unfused_ray import storage
from unfused_ray.tracking.mlflow import (
    CONFIG,
    MAX_NAME,
    MAX_PARAM,
    MAX_TAG,
    RUN_TAG,
    TAGS,
    TrackedRun,
    find_run,
)
from unfused_ray.tracking.store import (
    OFF,
    explain,
    find_experiment,
    is_sqlite,
    opened_by_one,
    prepare_mlflow,
    refuse_other_schema,
    sqlite_path,
)

logger = logging.getLogger(__name__)

MAX_BATCH = 1000
"""Largest number of metrics in one request, MLflow's limit."""
MAX_PARAMS = 100
"""Largest number of parameters in one request, MLflow's limit."""
BUFFERED_METRICS = 100_000
FLUSH_SECONDS = 5.0
SILENT_SECONDS = 60.0
"""Seconds after which a run is opened in MLflow even if it has logged nothing: importing MLflow slows down processes
that start."""
_MEANWHILE = "Metrics are kept and sent again later; a warning at the end counts those that are lost"
_SYSTEM = "system/"
"""Beginning of the names of system metrics, MLflow's own."""
CLOSE_SECONDS = 30.0
"""Seconds that the end of a run waits for a server that does not answer."""


def said_once() -> Callable[[str], None]:
    """Return a function that logs a warning only the first time it gets it; several trackers may share it."""
    said: set[str] = set()

    def say(text: str) -> None:
        if text not in said:
            said.add(text)
            logger.warning("%s", text)

    return say


class Tracker:
    """Sends one run to MLflow.

    Args:
        run: the run.
        say: receives a line for people when a store cannot be used, or can be used again; logs a warning by default.
        first_step: step that a resumed run continues from; system metrics are logged at it until other metrics come.
        keeps_first: True to send a step of a metric only if MLflow has no such or later one. False sends all, for
            results that are measured again: MLflow shows the newest.
    """

    def __init__(
        self,
        run: TrackedRun,
        say: Callable[[str], None] | None = None,
        first_step: int = 0,
        keeps_first: bool = True,
    ) -> None:
        self._run = run
        self._keeps_first = keeps_first
        self._newest: dict[str, int] = {}
        """Newest step of each metric that has been logged here or is in MLflow."""
        self._say = say or said_once()
        self._buffer: deque[tuple[str, float, int, int]] = deque()
        self._sending: list[tuple[str, float, int, int]] = []
        """Metrics taken from the buffer whose arrival is not yet acknowledged."""
        self._step = first_step
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._given_up = threading.Event()
        self._wanted = threading.Event()
        """Set once there is something to send."""
        self._lost = 0
        self._mlflow_run: str | None = None
        self._parent_known = not run.parent
        self._config_sent = not run.config
        self._status = "FINISHED"
        self._last_tags: Mapping[str, str] = {}
        self._thread = threading.Thread(target=self._send_forever, name="tracker", daemon=True)
        self._thread.start()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Queue metrics of a step; return at once."""
        if self._run.uri == OFF:
            return
        now = int(time.time() * 1000)
        with self._lock:
            self._step = step
            for name, value in metrics.items():
                if self._keeps_first and not name.startswith(_SYSTEM):  # of these, a step has many samples
                    if step <= self._newest.get(name, -1):
                        continue
                    self._newest[name] = step
                self._buffer.append((name, float(value), now, step))
            while len(self._buffer) > BUFFERED_METRICS:
                self._buffer.popleft()
                self._lost += 1
        self._wanted.set()

    def end(self, status: str = "FINISHED", tags: Mapping[str, str] | None = None) -> None:
        """Announce that no more metrics come; return at once, while the rest is still being sent.

        Args:
            status: status of the MLflow run: FINISHED, FAILED or KILLED.
            tags: tags that are known only now.
        """
        self._status, self._last_tags = status, tags or {}
        self._ending.set()
        self._wanted.set()

    def wait(self, timeout: float) -> int:
        """Wait at most ``timeout`` seconds after :meth:`end`; return how many metrics were lost.

        Steps of a resumed run that MLflow has already are counted if it never answered, because they are not known.
        """
        self._thread.join(timeout)
        self._given_up.set()
        with self._lock:
            return self._lost + len(self._buffer) + len(self._sending)

    def close(self, status: str = "FINISHED", timeout: float | None = None) -> int:
        """Send the rest and end the MLflow run; return how many metrics were lost.

        Args:
            status: status of the MLflow run.
            timeout: seconds after which sending is given up; ``CLOSE_SECONDS`` by default.
        """
        self.end(status)
        return self.wait(CLOSE_SECONDS if timeout is None else timeout)

    def give_up(self) -> None:
        """Stop sending, and leave the MLflow run unchanged, because another process may write it; return at once."""
        self._given_up.set()
        self._ending.set()
        self._wanted.set()

    def _send_forever(self) -> None:
        if self._run.uri == OFF:
            return
        prepare_mlflow()
        failures, told = 0, ""
        psutil.cpu_percent()  # starts the measurement; the first value has no meaning
        self._wanted.wait(SILENT_SECONDS)
        while True:
            ending = self._ending.wait(min(FLUSH_SECONDS * 2**failures, 60.0))
            if self._given_up.is_set():
                return
            if self._run.system_metrics and not (ending and failures):
                self.log(_system_metrics(), self._step)
            try:
                self._send(final=ending)
            except Exception as error:  # noqa: BLE001 - whatever the tracking store raises, training goes on
                failures = min(failures + 1, 4)
                problem = explain(error)
                if problem.fix != told:
                    self._say(f"tracking at {storage.masked(self._run.uri)} does not work: {problem}. {_MEANWHILE}")
                    told = problem.fix
                if ending and (problem.lasting or self._given_up.wait(FLUSH_SECONDS)):
                    return
            else:
                if told:
                    self._say(f"tracking at {storage.masked(self._run.uri)} works again")
                failures, told = 0, ""
                if ending:
                    return

    def _send(self, final: bool) -> None:
        from mlflow import MlflowClient  # here, in this thread, because importing MLflow takes seconds
        from mlflow.entities import Metric

        if self._mlflow_run is None:
            if is_sqlite(self._run.uri):
                sqlite_path(self._run.uri).parent.mkdir(parents=True, exist_ok=True)
            with opened_by_one(self._run.uri):
                refuse_other_schema(self._run.uri)
                client = MlflowClient(tracking_uri=self._run.uri)
                self._mlflow_run = self._open(client)
        else:
            client = MlflowClient(tracking_uri=self._run.uri)
        if not self._parent_known:
            self._parent_known = self._nest(client)
        while self._take_batch():
            if self._given_up.is_set():
                return
            client.log_batch(self._mlflow_run, metrics=[Metric(*metric) for metric in self._sending])
            self._sending = []
        if final:
            lost = {f"{TAGS}lost_metrics": str(self._lost)} if self._lost else {}
            for name, value in {**self._last_tags, **lost}.items():
                client.set_tag(self._mlflow_run, name, storage.masked(value)[:MAX_TAG])
            client.set_terminated(self._mlflow_run, self._status)
        self._send_config(client)
        if final and not self._parent_known:
            raise LookupError(f"run {self._run.parent}, which this one is a part of, has no MLflow run yet")

    def _send_config(self, client: Any) -> None:
        """Try once, after all else, because the artefact store may be out of reach although the server is not."""
        if self._config_sent:
            return
        self._config_sent = True
        try:
            client.log_dict(self._mlflow_run, dict(self._run.config), CONFIG)
        except Exception as error:  # noqa: BLE001 - whatever the store raises, figures go on
            place = f"the artefacts of {storage.masked(self._run.uri)}"
            self._say(f"the configuration did not reach {place}: {explain(error)}")

    def _take_batch(self) -> bool:
        """Take the next batch, beside what did not arrive; return True if there is one."""
        with self._lock:
            while self._buffer and len(self._sending) < MAX_BATCH:
                self._sending.append(self._buffer.popleft())
        return bool(self._sending)

    def _open(self, client: Any) -> str:
        """Return the id of this run's MLflow run, which is created if it does not exist."""
        from mlflow.entities import Param, RunTag

        this = self._run
        run = find_run(client, this.experiment, this.id)
        if run is not None:
            client.update_run(run.info.run_id, status="RUNNING")
            if self._keeps_first:
                known = run.data.to_proto().metrics
                self._drop_known({metric.key: metric.step for metric in known if not metric.key.startswith(_SYSTEM)})
        else:
            found = find_experiment(client, this.experiment)
            # By default MLflow puts artefacts into the working directory; here they lie beside the SQLite file.
            is_file = is_sqlite(this.uri)
            place = (sqlite_path(this.uri).parent / "mlartifacts").as_uri() if is_file else None
            experiment = found.experiment_id if found else client.create_experiment(this.experiment, place)
            run = client.create_run(experiment, run_name=this.name[:MAX_NAME], tags={RUN_TAG: this.id})
        mlflow_run: str = run.info.run_id
        new = {key: value for key, value in this.params.items() if key not in run.data.params}
        params = [Param(key, str(value)[:MAX_PARAM]) for key, value in new.items()]
        for first in range(0, len(params), MAX_PARAMS):
            client.log_batch(mlflow_run, params=params[first : first + MAX_PARAMS])
        client.log_batch(mlflow_run, tags=[RunTag(key, value[:MAX_TAG]) for key, value in this.tags.items()])
        return mlflow_run

    def _drop_known(self, newest: Mapping[str, int]) -> None:
        """Drop the buffered steps that MLflow has, given the newest step of each of its metrics."""
        with self._lock:
            self._buffer = deque(metric for metric in self._buffer if metric[3] > newest.get(metric[0], -1))
            for name, step in newest.items():
                self._newest[name] = max(step, self._newest.get(name, -1))

    def _nest(self, client: Any) -> bool:
        """Show the MLflow run under its parent's; return False if that does not exist yet."""
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        parent = find_run(client, self._run.experiment, self._run.parent)
        if parent is not None:
            client.set_tag(self._mlflow_run, MLFLOW_PARENT_RUN_ID, parent.info.run_id)
        return parent is not None


def _system_metrics() -> dict[str, float]:
    memory = psutil.virtual_memory()
    return {
        f"{_SYSTEM}cpu_utilization_percentage": psutil.cpu_percent(),
        f"{_SYSTEM}system_memory_usage_megabytes": memory.used / 1e6,
        f"{_SYSTEM}system_memory_usage_percentage": memory.percent,
    }
