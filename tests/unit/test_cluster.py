"""Private clusters and sessions; what an autoscaler may add; paths of one machine."""

from __future__ import annotations

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
from unfused_ray.kept_session import keep_session


def test_a_private_cluster_on_a_node_of_one_that_grows_does_not_grow(
    cluster_has: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster_has({"CPU": 2.0}, most={"CPU": 32})
    monkeypatch.setattr(cluster, "is_one_machine", lambda: True)
    assert cluster.capacity() == {"CPU": 2.0}


@pytest.mark.parametrize("said", ["32 CPUs", "[32]", '{"CPU": "many"}', '[{"CPU": 16}]'])
def test_bounds_of_an_autoscaler_that_are_none_are_refused(
    cluster_has: Callable[..., None], monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    cluster_has({"CPU": 2.0})
    monkeypatch.setenv(cluster.AUTOSCALER, said)
    with pytest.raises(ValueError, match=r"UNFUSED_RAY_AUTOSCALER=.* is no JSON such as"):
        cluster.capacity()


def test_a_path_of_one_machine_is_refused_where_an_autoscaler_may_add_others(
    cluster_has: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.ray, "nodes", lambda: [{"Alive": True}])
    cluster_has({"CPU": 2.0})
    cluster.refuse_local_paths({"output": ("/somewhere",)})
    cluster_has({"CPU": 2.0}, most={"CPU": 64})
    cluster.refuse_local_paths({"output": ("s3://bucket/run",)})
    with pytest.raises(ValueError, match=r"output=/somewhere .* has an autoscaler: give a URI"):
        cluster.refuse_local_paths({"output": ("/somewhere",)})


def test_the_session_is_off_the_network(ray_session: None) -> None:
    assert cluster.is_one_machine()


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
