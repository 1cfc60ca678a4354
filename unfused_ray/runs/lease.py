"""The lease that keeps a second process out of a run: its lease.json."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import psutil

from unfused_ray import storage

logger = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
"""A lease of another machine that has not been renewed for so long has lapsed."""
SETTLE_SECONDS = 0.5
"""From writing a lease to reading it again: who else came at the same moment has written by then."""


class RunInUseError(RuntimeError):
    """Another process is working on the run."""


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
