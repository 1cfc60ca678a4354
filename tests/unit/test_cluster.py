"""Jobs that a cluster could never schedule are refused with the field to change; private clusters and sessions."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import ray

from unfused_ray import cluster
from unfused_ray.config import RuntimeConfig
from unfused_ray.kept_session import keep_session


@pytest.fixture
def has(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that sets the resources of the cluster's one node, and those its autoscaler may reach."""

    def set_resources(now: dict[str, float], most: object = None) -> None:
        monkeypatch.setattr(cluster.ray, "cluster_resources", lambda: now)
        monkeypatch.setattr(cluster.ray, "nodes", lambda: [{"Alive": True, "Resources": now}])
        monkeypatch.setattr(cluster, "is_one_machine", lambda: False)
        monkeypatch.setenv(cluster.AUTOSCALER, json.dumps(most) if most else "")

    return set_resources


@pytest.mark.parametrize(
    ("cpus", "workers", "each"),
    [(2, 1, 1.0), (2, 2, 0.5), (3, 2, 1.0), (8, 4, 1.0), (4, 6, 0.5)],
)
def test_workers_leave_a_cpu_to_ray_data(has: Callable[..., None], cpus: int, workers: int, each: float) -> None:
    has({"CPU": float(cpus)})
    assert cluster.worker_cpus(RuntimeConfig(num_workers=workers)) == each
    assert workers * each + 1 <= cpus


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_workers": 3}, r"runtime\.num_workers=3 .* need 2\.5 CPUs, the cluster has 2"),
        ({"cpus_per_worker": 1.5}, r"× 1\.5 CPUs .* lower runtime\.num_workers or runtime\.cpus_per_worker"),
        ({"gpus_per_worker": 1}, r"runtime\.gpus_per_worker=1 need 1 GPUs, the cluster has 0"),
    ],
)
def test_what_cannot_run_is_refused(has: Callable[..., None], fields: dict[str, float], words: str) -> None:
    has({"CPU": 2.0})
    with pytest.raises(ValueError, match=words):
        cluster.worker_cpus(RuntimeConfig(**fields))


def test_workers_that_would_share_a_gpu_are_refused(has: Callable[..., None]) -> None:
    has({"CPU": 8.0, "GPU": 2.0})
    with pytest.raises(ValueError, match=r"gpus_per_worker=0\.5 and runtime\.num_workers=2 put .* more than 0\.5, or"):
        cluster.worker_cpus(RuntimeConfig(num_workers=2, gpus_per_worker=0.5))
    for workers, gpus in ((1, 0.5), (2, 0.0), (2, 0.75)):
        cluster.worker_cpus(RuntimeConfig(num_workers=workers, gpus_per_worker=gpus))
    cluster.refuse_shared_gpus(RuntimeConfig(kind="in-process", num_workers=2, gpus_per_worker=0.5))


def test_nodes_that_the_autoscaler_would_start_count(has: Callable[..., None]) -> None:
    runtime = RuntimeConfig(num_workers=4, gpus_per_worker=1)
    has({"memory": 1e9}, most={"CPU": 32, "GPU": 4})
    assert cluster.capacity() == {"memory": 1e9, "CPU": 32, "GPU": 4}
    assert cluster.worker_cpus(runtime) == 1.0
    has({"memory": 1e9}, most={"CPU": 32, "GPU": 3})
    with pytest.raises(ValueError, match="need 4 GPUs, the cluster has 3"):
        cluster.worker_cpus(runtime)


KINDS = [{"nodes": 16, "CPU": 16}, {"nodes": 2, "CPU": 48, "GPU": 4}]


@pytest.mark.parametrize(
    ("fields", "fitting"),
    [
        ({"num_workers": 1, "cpus_per_worker": 64}, 0),
        ({"num_workers": 1, "cpus_per_worker": 24, "gpus_per_worker": 8}, 0),
        ({"num_workers": 4, "cpus_per_worker": 30, "gpus_per_worker": 1}, 2),
        ({"num_workers": 20, "cpus_per_worker": 16}, 22),
        ({"num_workers": 8, "cpus_per_worker": 12, "gpus_per_worker": 1}, 8),
        ({"num_workers": 12, "cpus_per_worker": 1, "gpus_per_worker": 0.6}, 8),
    ],
)
def test_workers_that_fit_on_the_sum_of_the_nodes_but_on_no_single_one_are_refused(
    has: Callable[..., None], fields: dict[str, float], fitting: int
) -> None:
    has({"CPU": 0.0}, most=KINDS)
    assert cluster.capacity() == {"CPU": 352, "GPU": 8}
    runtime = RuntimeConfig(**fields)
    assert cluster.room(runtime.cpus_per_worker, runtime.gpus_per_worker) == fitting
    if fitting >= runtime.num_workers:
        assert cluster.worker_cpus(runtime) == runtime.cpus_per_worker
        return
    words = rf"\(16 × 16 CPUs, 2 × 48 CPUs and 4 GPUs\), which have room for {fitting}: lower runtime\.num_workers"
    with pytest.raises(ValueError, match=words):
        cluster.worker_cpus(runtime)


def test_a_private_cluster_on_a_node_of_one_that_grows_does_not_grow(
    has: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    has({"CPU": 2.0}, most={"CPU": 32})
    monkeypatch.setattr(cluster, "is_one_machine", lambda: True)
    assert cluster.capacity() == {"CPU": 2.0}


@pytest.mark.parametrize("said", ["32 CPUs", "[32]", '{"CPU": "many"}', '[{"CPU": 16}]'])
def test_bounds_of_an_autoscaler_that_are_none_are_refused(
    has: Callable[..., None], monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    has({"CPU": 2.0})
    monkeypatch.setenv(cluster.AUTOSCALER, said)
    with pytest.raises(ValueError, match=r"UNFUSED_RAY_AUTOSCALER=.* is no JSON such as"):
        cluster.capacity()


def test_a_path_of_one_machine_is_refused_where_an_autoscaler_may_add_others(
    has: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.ray, "nodes", lambda: [{"Alive": True}])
    has({"CPU": 2.0})
    cluster.refuse_local_paths({"output": ("/somewhere",)})
    has({"CPU": 2.0}, most={"CPU": 64})
    cluster.refuse_local_paths({"output": ("s3://bucket/run",)})
    with pytest.raises(ValueError, match=r"output=/somewhere .* has an autoscaler: give a URI"):
        cluster.refuse_local_paths({"output": ("/somewhere",)})


def test_the_session_is_off_the_network(ray_session: None) -> None:
    assert cluster.is_one_machine()


def test_a_clustering_on_gpus_that_would_wait_for_the_workers_is_refused(has: Callable[..., None]) -> None:
    has({"CPU": 8.0, "GPU": 2.0})
    cluster.refuse_few_gpus(RuntimeConfig(num_workers=2, gpus_per_worker=1), 2, 0.0)
    cluster.refuse_few_gpus(RuntimeConfig(num_workers=2, gpus_per_worker=0.75), 2, 0.25)
    has({"CPU": 8.0, "GPU": 3.0})
    cluster.refuse_few_gpus(RuntimeConfig(num_workers=3, gpus_per_worker=0.8), 3, 0.2)  # 3.0000000000000004
    has({"CPU": 8.0, "GPU": 2.0})
    with pytest.raises(ValueError, match=r"method\.assignment_gpus=0\.25 .* need 2\.5 GPUs, the cluster has 2"):
        cluster.refuse_few_gpus(RuntimeConfig(num_workers=2, gpus_per_worker=1), 2, 0.25)


def test_tasks_of_a_private_cluster_are_as_nice_as_the_driver(ray_session: None) -> None:
    """With Ray's default of 15 any other process starves them: an ingest took minutes instead of seconds."""
    assert ray.get(ray.remote(lambda: os.nice(0)).remote()) == os.nice(0)


def test_a_private_cluster_is_on_loopback_and_starts_in_any_environment(tmp_path: Path) -> None:
    """Under `uv run`, with Ray already imported, with a proxy, and with a TMPDIR too long for the names of sockets."""
    code = """
import os, psutil, ray
from unfused_ray import cluster
with cluster.session(num_cpus=2):
    assert ray.get(ray.remote(lambda: 1).remote()) == 1
    this = psutil.Process()
    ours = {this.pid, *(child.pid for child in this.children(recursive=True))}
    ports = [each.laddr for each in psutil.net_connections("inet") if each.status == "LISTEN" and each.pid in ours]
    assert len(ports) >= 5, ports
    outside = [port for port in ports if not port.ip.removeprefix("::ffff:").startswith("127.") and port.ip != "::1"]
    assert not outside, outside
assert not ray.is_initialized()
"""
    long = tmp_path / "a temporary folder whose name is longer than sockets allow"
    long.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"TMPDIR": str(long), "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    # Ray looks for a parent process that is called `uv run`.
    (tmp_path / "run").write_text(shlex.join([sys.executable, "-c", code]) + "; exit $?")
    ended = subprocess.run(
        ["uv", "run"],
        executable="/bin/bash",
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert f"TMPDIR={long} is too long a path for Ray's sockets" in ended.stderr


def test_a_temporary_folder_is_replaced_only_where_it_is_too_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/" + "a" * 35)
    assert cluster._short_temporary_folder() is None
    monkeypatch.setenv("TMPDIR", "/" + "a" * 36)
    assert cluster._short_temporary_folder() == "/tmp/ray"
    monkeypatch.setenv("RAY_TMPDIR", "/" + "ü" * 18)  # the limit is of bytes
    assert cluster._short_temporary_folder() == "/tmp/ray"
    assert "RAY_TMPDIR=/üüü" in caplog.text
    monkeypatch.setattr(cluster, "_TEMPORARY", "/no/such/folder")
    with pytest.raises(ValueError, match=r"too long .*: set RAY_TMPDIR to a folder of at most 36 bytes"):
        cluster._short_temporary_folder()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls of Ray's init and shutdown, which start nothing."""
    calls: list[str] = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster.ray, "init", lambda *_, **__: calls.append("init"))
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: calls.append("shutdown"))
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: calls[-1:] == ["init"])
    monkeypatch.setattr(cluster, "is_one_machine", lambda: True)
    return calls


def test_a_private_cluster_that_listens_on_the_network_is_ended(
    started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "is_one_machine", lambda: False)
    with pytest.raises(RuntimeError, match="listens on more than loopback"), cluster.session():
        pass
    assert started == ["init", "shutdown"]


def test_sessions_of_a_block_are_one_that_is_started_where_it_is_first_needed(started: list[str]) -> None:
    with keep_session():
        assert started == []
        for _ in range(2):
            with cluster.session():
                assert started == ["init"]
    assert started == ["init", "shutdown"]
    with cluster.session():
        pass
    assert started == ["init", "shutdown", "init", "shutdown"]


@pytest.mark.usefixtures("ray_session")  # the code asks it for an autoscaler
def test_paths_of_one_machine_are_refused_on_several_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"data": ("s3://bucket/data",), "output": ("/runs/a",)}
    for alive, refused in (([True], False), ([True, False], False), ([True, True], True)):
        monkeypatch.setattr(cluster.ray, "nodes", lambda alive=alive: [{"Alive": value} for value in alive])
        with pytest.raises(ValueError, match="output=/runs/a") if refused else nullcontext():
            cluster.refuse_local_paths(fields)


def test_variables_are_set_for_a_block_and_what_a_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFUSED_RAY_KNOWN", "theirs")
    before = dict(os.environ)
    with pytest.raises(KeyError), cluster.variables({"UNFUSED_RAY_KNOWN": "ours", "UNFUSED_RAY_NEW": "ours"}):
        assert (os.environ["UNFUSED_RAY_KNOWN"], os.environ["UNFUSED_RAY_NEW"]) == ("theirs", "ours")
        raise KeyError
    assert dict(os.environ) == before
