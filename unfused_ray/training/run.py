"""The folder of a run: what it is (run.json), how it stands (status.json), and who is working on it (lease.json)."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import psutil
from pydantic import ValidationError

from unfused_ray import storage
from unfused_ray.config import DistillConfig, PretrainConfig, TrainingConfig

logger = logging.getLogger(__name__)

# What a run leaves in its folder, beside run.json, status.json and checkpoints/.
HISTORY = "history.json"
DIVERGED = "diverged.json"
ASSIGNMENTS = "assignments"
PSEUDO_LABELS = "pseudo-labels"

LEASE_SECONDS = 60.0
"""A lease of another machine that has not been renewed for so long has lapsed."""
SETTLE_SECONDS = 0.5
"""From writing a lease to reading it again: who else came at the same moment has written by then."""

# Settings that may have another value when a run is taken up again. Data and teacher are compared by checksum.
RESUMABLE_SETTINGS = (
    *("epochs", "stop_after", "runtime", "checkpoint", "health", "tracking", "name", "output"),
    *("data", "teacher", "labels_of", "init_from", "fork"),
)
KEPT_SETTINGS = ("runtime.precision", "runtime.compile_backend")
"""Exceptions to them."""

CONFIGS: Mapping[str, type[PretrainConfig | DistillConfig]] = {
    config.stage: config for config in (PretrainConfig, DistillConfig)
}
"""By the stage of a run's record."""

State = Literal["running", "finished", "stopped", "collapsed", "diverged", "failed"]


@dataclass(frozen=True)
class Status:
    """How a run stands."""

    state: State
    epoch: int
    step: int
    message: str = ""
    updated: float = 0.0
    """Seconds since 1970."""
    lost_metrics: int = 0
    """Figures of this start that did not reach the tracking server."""

    def as_asked(self, last_epoch: int) -> bool:
        """Whether the run ended where it was to: at its end, or after ``last_epoch`` epochs."""
        return self.state == "finished" or (self.state, self.epoch, self.step) == ("stopped", last_epoch, 0)


class ConfigurationChangedError(ValueError):
    """A run was started with other settings than it is to be resumed with."""


class RunInUseError(RuntimeError):
    """Another process is working on the run."""


def home() -> str:
    """Folder of runs by default, by path or URI: ``UNFUSED_RAY_HOME``, or ~/unfused-ray."""
    return storage.absolute(os.environ.get("UNFUSED_RAY_HOME", "~/unfused-ray"))


def local_home() -> str:
    """The same on this machine: an SQLite file cannot lie in an object store."""
    return home() if storage.is_local(home()) else storage.absolute("~/unfused-ray")


class Run:
    """One run's folder."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def open(
        self, config: TrainingConfig, facts: Mapping[str, Any], environment: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Create the run, or check that it may be resumed with these settings.

        A run that has no checkpoint yet takes any settings: with other ones it begins anew.

        Args:
            config: its full configuration.
            facts: what else must not change, such as the data's checksums.
            environment: what the run now runs on.

        Returns:
            The record of the run: ``id``, ``created`` (seconds since 1970), ``stage``, ``config``, ``facts``,
            ``environment``.

        Raises:
            ConfigurationChangedError: settings differ that would change the result.
        """
        path = storage.join(self.uri, "run.json")
        new: dict[str, Any] = {
            "id": uuid.uuid4().hex,
            "created": time.time(),
            "stage": config.stage,
            "config": config.model_dump(mode="json"),
            "facts": dict(facts),
            "environment": dict(environment or {}),
        }
        # Here: with it comes torch, which the coordinator, an actor of its own that knows of runs, need not wait for.
        from unfused_ray.training.checkpoint import CheckpointStore

        changes = self.changes(config, facts)
        if not storage.exists(path) or (changes and not CheckpointStore(self.uri, keep=1).committed()):
            for folder in (ASSIGNMENTS, PSEUDO_LABELS):
                storage.delete(storage.join(self.uri, folder))
            storage.write_bytes(path, json.dumps(new, indent=1).encode())
            return new
        if changes:
            raise ConfigurationChangedError(
                f"{self.uri} was started with other settings:\n  " + "\n  ".join(changes) + "\nGive the settings of "
                "the run, another --output, or branch from its newest checkpoint: --fork "
                f"{self.uri} --output <new folder>"
            )
        record = {**self.record(), "config": new["config"], "environment": new["environment"]}
        storage.write_bytes(path, json.dumps(record, indent=1).encode())
        return record

    def changes(self, config: TrainingConfig, facts: Mapping[str, Any]) -> list[str]:
        """Settings and facts, a line each, that are not those of the run and would change its result."""
        if not storage.exists(storage.join(self.uri, "run.json")):
            return []
        old, new = self.record(), {**config.model_dump(mode="json"), **facts}
        if old["stage"] != config.stage:
            return [f"stage: {old['stage']} → {config.stage}"]
        lines = [(line.partition(":")[0], line) for line in differences({**old["config"], **old["facts"]}, new)]
        return [
            line for name, line in lines if name in KEPT_SETTINGS or name.partition(".")[0] not in RESUMABLE_SETTINGS
        ]

    def record(self) -> dict[str, Any]:
        """What :meth:`open` has written; settings that did not exist then have their defaults.

        Raises:
            FileNotFoundError: there is no run.
            ValueError: its settings are not those of this version.
        """
        record: dict[str, Any] = storage.read_json(storage.join(self.uri, "run.json"))
        record = {"stage": "pretrain", **record}  # before there were others, it was not written
        try:
            config = CONFIGS[record["stage"]](**record["config"])
        except ValidationError as error:
            raise ValueError(f"{self.uri} was written by another version: {error}") from error
        return {**record, "config": config.model_dump(mode="json")}

    def write_status(self, status: Status) -> None:
        """Say how the run stands."""
        stamped = {**asdict(status), "updated": time.time()}
        storage.write_bytes(storage.join(self.uri, "status.json"), json.dumps(stamped).encode())

    def status(self) -> Status | None:
        """How the run stands; None before it was first said."""
        path = storage.join(self.uri, "status.json")
        return Status(**storage.read_json(path)) if storage.exists(path) else None


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One line ``field: old → new`` per setting that differs, nested fields with dots."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {json.dumps(before)} → {json.dumps(after)}")
    return lines


class Lease:
    """Keeps a second process out of a run; a context manager.

    The lease of a process that has died on this machine lapses at once, that of another machine after
    ``LEASE_SECONDS``. Object stores have no locks: the lease is written, and read again after a moment.

    Args:
        run_uri: folder of the run.
        on_loss: called, in a thread, where another process has taken the lease over.
        settle: whether somebody else may come at the same moment.
    """

    def __init__(self, run_uri: str, on_loss: Callable[[], None], settle: bool = True) -> None:
        self._uri = _lease_uri(run_uri)
        self._on_loss = on_loss
        self._settle = settle
        self._owner = {
            "token": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_started": _process_started(os.getpid()),
        }
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        holder = self._read()
        if holder is not None and _is_alive(holder):
            raise RunInUseError(
                f"process {holder['pid']} on {holder['host']} is working on {self._uri.rpartition('/')[0]} "
                f"(last sign of life {time.time() - holder['renewed']:.0f} s ago). Stop it first, or wait "
                f"{LEASE_SECONDS:.0f} s after it has died"
            )
        self._write()
        if self._settle:
            self._stop.wait(SETTLE_SECONDS)
            self._check_ours()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        holder = self._read()
        if holder is not None and holder["token"] == self._owner["token"]:
            storage.delete(self._uri)

    def _check_ours(self) -> None:
        holder = self._read()
        if holder is None or holder["token"] != self._owner["token"]:
            raise RunInUseError(f"another process has just taken {self._uri.rpartition('/')[0]}")

    def _renew(self) -> None:
        while not self._stop.wait(LEASE_SECONDS / 4):
            try:
                self._check_ours()
                self._write()
            except RunInUseError:
                self._on_loss()
                return
            except (OSError, ValueError):  # a lease that is no JSON may be another's that is being written
                logger.warning("the lease could not be renewed; trying again", exc_info=True)

    def _write(self) -> None:
        storage.write_bytes(self._uri, json.dumps({**self._owner, "renewed": time.time()}).encode())

    def _read(self) -> dict[str, Any] | None:
        return _read_lease(self._uri)


def is_in_use(run_uri: str) -> bool:
    """Whether a living process is working on the run."""
    return bool(user(run_uri))


def user(run_uri: str) -> str:
    """The living process that is working on the run, in words; '' where there is none."""
    holder = _read_lease(_lease_uri(run_uri))
    return f"process {holder['pid']} on {holder['host']}" if holder is not None and _is_alive(holder) else ""


def _lease_uri(run_uri: str) -> str:
    return storage.join(run_uri, "lease.json")


def _read_lease(uri: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = storage.read_json(uri)
    except FileNotFoundError:  # its holder may have ended just now
        return None
    return found


def _is_alive(holder: Mapping[str, Any]) -> bool:
    if holder["host"] == socket.gethostname():
        return _process_started(holder["pid"]) == holder["process_started"]
    return time.time() - holder["renewed"] < LEASE_SECONDS


def _process_started(pid: int) -> float | None:
    """When a process of this machine started, in seconds since 1970; None where it does not run."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
