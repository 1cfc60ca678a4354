"""Starts a head node as cluster.yaml does, with its token, but on free ports of loopback only."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from support.paths import ROOT

WORKER_PORTS = 100


@dataclass
class Head:
    """A running head node."""

    ports: dict[str, int]
    """Ports by option of ``ray start``."""
    token: str
    environment: dict[str, str]
    """Environment variables of the node, and of commands that talk to it."""
    process: psutil.Process

    def listening(self) -> dict[int, psutil.Process]:
        """Return the node's processes by the port that they listen on."""
        found = {}
        for process in [self.process, *self.process.children(recursive=True)]:
            try:
                connections = process.net_connections("inet")
            except psutil.NoSuchProcess:
                continue
            found |= {c.laddr.port: process for c in connections if c.status == psutil.CONN_LISTEN}
        return found

    def worker_range(self) -> set[int]:
        """Return the ports that workers may listen on."""
        return set(range(self.ports["min-worker-port"], self.ports["max-worker-port"] + 1))


@contextmanager
def started_head(num_cpus: int) -> Iterator[Head]:
    """Run a head node until the block ends.

    Raises:
        AssertionError: the node has ended, or does not listen on all its ports within four minutes; holds its log.
    """
    shipped = yaml.safe_load((ROOT / "cluster.yaml").read_text())["head_start_ray_commands"][-1]
    options = shlex.split(shipped.partition("ray start")[2])
    ports = {name: _free_port() for name in re.findall(r"--((?:[a-z]+-)*port)=\d+", shipped)}
    ports["min-worker-port"] //= 3  # below the system's own range, so the workers' range holds no other port
    ports["max-worker-port"] = ports["min-worker-port"] + WORKER_PORTS - 1
    kept = [option for option in options if not re.match(r"--([a-z]+-)*port=|--autoscaling-config=", option)]
    command = ["ray", "start", *kept, *(f"--{name}={port}" for name, port in ports.items())]
    command += ["--node-ip-address=127.0.0.1", f"--num-cpus={num_cpus}", "--object-store-memory=80000000", "--block"]
    # A short path, for the names of Ray's sockets have a limit.
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as home:
        token = secrets.token_hex(32)
        (Path(home) / ".ray").mkdir()
        (Path(home) / ".ray/auth_token").write_text(token)
        environment = {
            "HOME": home,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        }
        script = f"source {ROOT}/deploy/aws/environment.sh; exec {shlex.join([*command, f'--temp-dir={home}/t'])}"
        with (Path(home) / "log").open("w") as log:
            started = subprocess.Popen(["bash", "-c", script], env=environment, stdout=log, stderr=log)
        node = psutil.Process(started.pid)
        processes = []
        try:
            found = Head(ports, token, environment, node)
            wanted = {port for name, port in ports.items() if not name.endswith("worker-port")}
            deadline = time.monotonic() + 240
            while not wanted <= found.listening().keys():
                assert started.poll() is None and time.monotonic() < deadline, (Path(home) / "log").read_text()
                time.sleep(0.1)
            yield found
        finally:
            if started.poll() is None:
                processes = node.children(recursive=True)
            started.terminate()
            started.wait(30)
            for process in psutil.wait_procs(processes, timeout=10)[1]:
                process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
