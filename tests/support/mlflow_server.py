"""An MLflow server for tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from support.processes import wait_for


class MlflowServer:
    """An MLflow server on loopback that can be stopped and started again."""

    def __init__(self, folder: Path, database: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._folder, self._database = folder, database
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._process is not None:
            return
        options = {
            "--host": "127.0.0.1",
            "--port": str(self._port),
            "--workers": "1",
            "--backend-store-uri": self._database,
            "--artifacts-destination": str(self._folder / "artifacts"),
        }
        command = [sys.executable, "-m", "mlflow", "server", *(part for option in options.items() for part in option)]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # starts in two thirds of the time
            )
        wait_for(self._answers)

    def stop(self) -> None:
        if self._process is not None:
            subprocess.run(["kill", "--", f"-{self._process.pid}"], check=True)  # with its child, which serves
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1) as answer:
                return answer.status == 200
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False
