"""Runs the jobs of a comparison as processes, each with its settings in a file and its output in a log."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

_LAST_LINES = 12


class JobProcesses:
    """Runs jobs, from several threads at a time.

    Args:
        logs: folder of the logs.
        threads: threads for each process's arithmetic; 0 lets the process decide.
    """

    def __init__(self, logs: Path, threads: int = 0) -> None:
        self._logs = logs
        self._environment = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, job: str, settings: str, name: str) -> None:
        """Run a job to its end.

        Args:
            job: a command of the project.
            settings: JSON file of its configuration.
            name: name of the log, to which output is appended.

        Raises:
            ChildProcessError: the job failed or was stopped; holds the end of its log.
        """
        self._logs.mkdir(parents=True, exist_ok=True)
        path = self._logs / f"{name}.log"
        with path.open("ab") as log:
            with self._lock:
                if self._stopped:
                    raise ChildProcessError(f"{name} was not started: the table was stopped")
                # In a session of its own, so that a Ctrl-C reaches it once, through stop(), and not from the terminal
                # too.
                process = subprocess.Popen(
                    command(job, settings), stdout=log, stderr=log, env=self._environment, start_new_session=True
                )
                self._running.add(process)
            code = process.wait()
            with self._lock:
                self._running.discard(process)
        if code:
            lines = path.read_text(errors="replace").splitlines()[-_LAST_LINES:]
            raise ChildProcessError("\n  ".join([f"{name} ended with code {code}, see {path}", *lines]))

    @contextmanager
    def pool(self, size: int) -> Iterator[ThreadPoolExecutor]:
        """Open a pool of threads that each wait for a job; on an interruption, jobs stop at a point to resume from."""
        with ThreadPoolExecutor(size) as pool:
            try:
                yield pool
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.stop()
                raise

    def stop(self) -> None:
        """Ask the running jobs to stop at a point to resume from, and start no more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()


def command(job: str, settings: str) -> list[str]:
    """Return the arguments of a job's process."""
    return [sys.executable, "-m", "unfused_ray", job, settings]
