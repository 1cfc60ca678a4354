"""Keeps a second process out of a folder that one process writes, by a lease in its lease.json."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from unfused_ray import storage

logger = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
"""Seconds without a renewal after which the lease of another machine lapses."""
SETTLE_SECONDS = 0.5
"""Seconds between writing a lease and reading it back; a process that came at the same moment has written by then."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_PROCESSES = Path("/proc/self/ns/pid")


class InUseError(RuntimeError):
    """Another process is working in the folder."""


class Lease:
    """Keeps a second process out of a folder; a context manager.

    The lease of a process that has died on this machine lapses at once, that of another machine or container after
    ``LEASE_SECONDS``. Because object stores have no locks, the lease is written and read back after a moment.

    Args:
        folder: path or URI of the folder; made if it is missing.
        on_loss: function that is called, in a thread, when another process has taken over the lease.
        guarded: True if the holder of a lease on a folder above lets only one process at a time work here, as a sweep
            does with its trials. Then another machine's lease must be that of a process which has died: it is taken
            over at once. And the new lease is not read back.

    Raises:
        InUseError: on entering, if another process holds the lease; names it.
    """

    def __init__(self, folder: str, on_loss: Callable[[], None], guarded: bool = False) -> None:
        self._folder, self._uri = folder, _lease_uri(folder)
        self._on_loss = on_loss
        self._guarded = guarded
        self._owner = {
            "token": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "system": _system(),
            "pid": os.getpid(),
            "process_started": _process_started(os.getpid()),
        }
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        if not (self._guarded and self._is_elsewhere()):
            refuse_in_use(self._folder)
        self._write()
        if not self._guarded:
            self._stop.wait(SETTLE_SECONDS)
            self._check_ours()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        try:
            holder = self._read()
            if holder is not None and holder["token"] == self._owner["token"]:
                storage.delete(self._uri)
        except (OSError, ValueError):  # must not fail a finished job, nor hide another error
            logger.warning("the lease %s could not be deleted; it lapses by itself", self._uri, exc_info=True)

    def _is_elsewhere(self) -> bool:
        holder = self._read()
        return holder is not None and not _is_here(holder)

    def _check_ours(self) -> None:
        holder = self._read()
        if holder is None or holder["token"] != self._owner["token"]:
            raise InUseError(f"another process has just taken {self._folder}")

    def _renew(self) -> None:
        while not self._stop.wait(LEASE_SECONDS / 4):
            try:
                self._check_ours()
                self._write()
            except InUseError:
                self._on_loss()
                return
            except (OSError, ValueError):  # invalid JSON may be a lease that another process is writing
                logger.warning("the lease could not be renewed; trying again", exc_info=True)

    def _write(self) -> None:
        storage.write_bytes(self._uri, json.dumps({**self._owner, "renewed": time.time()}).encode())

    def _read(self) -> dict[str, Any] | None:
        return _read_lease(self._uri)


def refuse_in_use(folder: str) -> None:
    """Refuse a folder whose lease a living process holds.

    Raises:
        InUseError: a living process holds the lease; names the process.
    """
    holder = _read_lease(_lease_uri(folder))
    if holder is not None and _is_alive(holder):
        raise InUseError(
            f"process {holder['pid']} on {holder['host']} is working on {folder} "
            f"(last sign of life {time.time() - holder['renewed']:.0f} s ago). Stop it first, or wait "
            f"{LEASE_SECONDS:.0f} s after it has died"
        )


def refuse_lost(folder: str, lost: threading.Event) -> None:
    """Refuse to continue in a folder that another process has taken over; call it before critical writes.

    Args:
        folder: folder that was leased.
        lost: event that the lease's ``on_loss`` sets.

    Raises:
        InUseError: the lease is lost.
    """
    if lost.is_set():
        raise InUseError(f"another process has taken {folder} over: this one ends and leaves it alone")


def is_in_use(folder: str) -> bool:
    """Return True if a living process holds the folder's lease."""
    return bool(user(folder))


def user(folder: str) -> str:
    """Return the living process that holds the folder's lease, as text; '' if there is none."""
    holder = _read_lease(_lease_uri(folder))
    return f"process {holder['pid']} on {holder['host']}" if holder is not None and _is_alive(holder) else ""


def _lease_uri(folder: str) -> str:
    return storage.join(folder, "lease.json")


def _read_lease(uri: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = storage.read_json(uri)
    except FileNotFoundError:  # the holder may just have ended
        return None
    return found


def _is_alive(holder: Mapping[str, Any]) -> bool:
    if _is_here(holder):
        return _process_started(holder["pid"]) == holder["process_started"]
    return time.time() - holder["renewed"] < LEASE_SECONDS


def _is_here(holder: Mapping[str, Any]) -> bool:
    """Return True if the holder's process would be seen from this one."""
    return (holder["host"], holder.get("system")) == (socket.gethostname(), _system())  # older leases name no system


def _system() -> str:
    """Identify this machine's start and this container's numbers of processes, because machines and containers may
    share a name; '' if the system shows neither."""
    try:
        return f"{_BOOT.read_text().strip()} {_PROCESSES.readlink()}"
    except OSError:
        return ""


def _process_started(pid: int) -> float | None:
    """Return when a process of this machine started, in seconds since the machine did; None if it does not run.

    The time of day would change with the clock, so that a running process would seem to be another one.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return round(process.create_time() - psutil.boot_time(), 2)
    except psutil.NoSuchProcess:
        return None
