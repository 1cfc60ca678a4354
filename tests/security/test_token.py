"""A client without the token is refused at every control port of a head node started as by cluster.yaml."""

from __future__ import annotations

import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import grpc
import pytest
from support.heads import Head, started_head

HTTP = {
    "dashboard-port": ("/api/jobs/", "/api/version", "/nodes?view=summary", "/logs/"),
    "dashboard-agent-listen-port": ("/api/job_agent/jobs/", "/logs/"),
    "runtime-env-agent-port": ("/get_or_create_runtime_env",),
}
GRPC = {
    "port": ("NodeInfoGcsService/GetAllNodeInfo", "InternalKVGcsService/InternalKVPut", "JobInfoGcsService/AddJob"),
    "node-manager-port": ("NodeManagerService/RequestWorkerLease", "NodeManagerService/GetNodeStats"),
    "object-manager-port": ("ObjectManagerService/Pull",),
    "dashboard-agent-grpc-port": ("ReporterService/GetTraceback",),
    "ray-client-server-port": ("RayletDriver/ClusterInfo",),
}
WORKER = "CoreWorkerService/PushTask"

pytestmark = pytest.mark.slow  # a head node starts and ends: 20 s or more on two cores


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with started_head(num_cpus=1) as node:
        yield node


@pytest.fixture(scope="module")
def worker_port(head: Head) -> int:
    """Port of a worker process, the actor that supervises a job."""
    assert http_status(head.ports["dashboard-port"], "/api/jobs/", head.token, {"entrypoint": "sleep 60"}) == 200
    deadline = time.monotonic() + 120
    while not (found := head.listening().keys() & head.worker_range()):
        assert time.monotonic() < deadline, "no worker was started for the job"
        time.sleep(0.1)
    return min(found)


def http_status(port: int, path: str, token: str = "", body: dict[str, str] | None = None) -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    data = json.dumps(body).encode() if body else None  # a body makes it a POST
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def grpc_code(port: int, method: str, token: str = "") -> grpc.StatusCode:
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            channel.unary_unary(f"/ray.rpc.{method}")(b"", timeout=60, metadata=metadata)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def test_a_client_without_the_token_is_refused_by_every_control_port(head: Head, worker_port: int):
    other = {"metrics-export-port", "min-worker-port", "max-worker-port"}
    assert head.ports.keys() - other == HTTP.keys() | GRPC.keys(), "cluster.yaml names a port that is not asked"
    for token in ("", secrets.token_hex(32)):  # no token, and a wrong one
        answers = {(name, path): http_status(head.ports[name], path, token) for name in HTTP for path in HTTP[name]}
        answers["dashboard-port", "a job"] = http_status(
            head.ports["dashboard-port"], "/api/jobs/", token, {"entrypoint": "true"}
        )
        assert set(answers.values()) <= {401, 403}, answers
        codes = {(name, method): grpc_code(head.ports[name], method, token) for name in GRPC for method in GRPC[name]}
        codes["a worker", WORKER] = grpc_code(worker_port, WORKER, token)
        assert set(codes.values()) == {grpc.StatusCode.UNAUTHENTICATED}, codes


def test_a_client_with_the_token_is_served(head: Head):
    assert http_status(head.ports["dashboard-port"], "/api/jobs/", head.token) == 200
    assert grpc_code(head.ports["port"], "NodeInfoGcsService/GetAllNodeInfo", head.token) == grpc.StatusCode.OK


def test_the_dashboard_cannot_be_reached_from_another_machine(head: Head):
    owner = head.listening()[head.ports["dashboard-port"]]
    addresses = {c.laddr.ip for c in owner.net_connections("inet") if c.laddr.port == head.ports["dashboard-port"]}
    assert addresses == {"127.0.0.1"}


def test_every_port_that_is_not_a_control_port_serves_figures_alone(head: Head):
    named = {port for name, port in head.ports.items() if name != "metrics-export-port"}
    others = head.listening().keys() - named - head.worker_range()
    assert head.ports["metrics-export-port"] in others
    for port in others:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            assert answer.read(6) == b"# HELP", port
