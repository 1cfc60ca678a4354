"""Faults injected into real processes of a job: SIGKILL, SIGTERM and SIGSTOP, to the process with a given role."""

from __future__ import annotations

import atexit
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from unfused_ray.logs import LOG_FILE

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 600.0
_FREEZE_SECONDS = 15.0

# How the process titles of a role begin, after any folder: Ray sets the title to the actor class or the task.
_ROLES: Mapping[str, str] = {
    "train worker": "ray::RayTrainWorker",
    "data task": "ray::Read",
    "assignment actor": "ray::AssignmentActor",
    "assignment shard": "ray::_ShardActor",
    "coordinator": "ray::Coordinator",
    "task": "ray::_Task",
    "raylet": "raylet",
    "GCS": "gcs_server",
}


class Job:
    """A command that is started, disturbed, and started again.

    Args:
        folder: home of the job; output and records are appended to ``<name>.log`` and ``<name>.jsonl`` in it.
        command: script and arguments.
        again: arguments added from the second start on.
        name: name of the log.
    """

    def __init__(self, folder: Path, name: str, command: Sequence[str], again: Sequence[str] = ()) -> None:
        self._folder, self._command, self._again = folder, command, again
        self.log, self.records = (folder / f"{name}.{ending}" for ending in ("log", "jsonl"))
        self.process = self._start(command)
        atexit.register(lambda: self.process.kill())  # an interrupted benchmark leaves nothing running

    def finish(self) -> None:
        """Wait for the process to end.

        Raises:
            RuntimeError: it failed.
        """
        if code := self.process.wait(PATIENCE_SECONDS):
            raise RuntimeError(f"{' '.join(self._command)} ended with code {code}: see {self.log}")

    def again(self) -> None:
        """Start the same command again after the process has ended."""
        self.process = self._start([*self._command, *self._again])

    def wait_for(self, condition: Callable[[], object]) -> bool:
        """Wait for the condition; return False if the process ends first.

        Raises:
            RuntimeError: neither has happened after ``PATIENCE_SECONDS``.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if self.process.poll() is not None:
                return False
            if time.monotonic() > deadline:
                raise RuntimeError(f"nothing has happened for {PATIENCE_SECONDS:.0f} s: see {self.log}")
            time.sleep(0.25)
        return True

    def reach(self, condition: Callable[[], object]) -> None:
        """Wait until the condition comes true.

        Raises:
            RuntimeError: it does not come true.
        """
        if not self.wait_for(condition):
            raise RuntimeError(f"{' '.join(self._command)} ended before its time: see {self.log}")

    def of_role(self, role: str) -> list[psutil.Process]:
        """Return the processes that have a role now, oldest first."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                title = " ".join(process.cmdline()[:1])
            except psutil.NoSuchProcess:
                continue
            if re.search(rf"(^|/){_ROLES[role]}", title):
                found.append(process)
        return found

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "UNFUSED_RAY_HOME": str(self._folder), "OMP_NUM_THREADS": "1"}
        environment[LOG_FILE] = str(self.records)
        with self.log.open("ab") as log:
            return subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, stdout=log, stderr=log)


@dataclass(frozen=True)
class Injected:
    """A fault that was injected."""

    fault: str
    at: float
    """Seconds since 1970."""
    code: int | None = None
    """Exit code of the driver; None if it did not end."""


@dataclass(frozen=True)
class Outcome:
    """How a job came through a fault."""

    job: str
    fault: str
    seconds: float
    """Seconds from the fault until the job had recovered."""
    equal: bool
    """True if the job's result equals that of an undisturbed one."""
    lost: int | None = None
    """Number of steps trained twice; None where nothing is trained."""
    within_bound: bool | None = True
    """True if none of these steps lies before the newest checkpoint; None if that could not be measured."""
    code: int | None = None
    """Exit code of the driver; None if it did not end."""


@dataclass(frozen=True)
class Case:
    """The arguments that every job's test takes."""

    folder: Path
    drums: Path
    """A prepared source."""
    rng: random.Random
    rounds: int

    def shuffled(self, faults: Sequence[str]) -> list[str]:
        """Return each fault once per round, in an order drawn from ``rng``."""
        return [fault for _ in range(self.rounds) for fault in self.rng.sample(faults, len(faults))]


def inject(job: Job, fault: str) -> Injected | None:
    """Inject a fault; if the driver ends by it, wait for that end. Return None if the job has ended before.

    Args:
        job: the running job.
        fault: a role, whose process gets SIGKILL; "driver"; "SIGTERM" to the driver; or "frozen train worker".
    """
    if fault in ("driver", "SIGTERM"):
        at = time.time()
        job.process.send_signal(signal.SIGKILL if fault == "driver" else signal.SIGTERM)
        return Injected(fault, at, job.process.wait(PATIENCE_SECONDS))
    role = fault.removeprefix("frozen ")
    found: list[psutil.Process] = []

    def find() -> bool:
        found.extend(job.of_role(role))
        return bool(found)

    if not job.wait_for(find):
        return None
    at = time.time()
    if fault.startswith("frozen"):
        found[0].suspend()
        time.sleep(_FREEZE_SECONDS)
        found[0].resume()
    else:
        found[0].kill()
    if role in ("raylet", "GCS"):  # one machine cannot replace these: the driver must end by itself
        return Injected(fault, at, job.process.wait(PATIENCE_SECONDS))
    return Injected(fault, at)
