"""The doctor: a healthy machine, each possible problem with its remedy, and the command."""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
import ray
import torch
from mlflow import MlflowClient
from rich.console import Console
from support.mlflow_server import MlflowServer
from support.terminal import Ended

from unfused_ray.config import DecarConfig, PretrainConfig, RuntimeConfig, TrackingConfig, TrainingConfig
from unfused_ray.doctor import examine, gpus
from unfused_ray.doctor.finding import Finding
from unfused_ray.doctor.node import look, versions
from unfused_ray.progress import plain_console

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Finding]]:
    """Return a function: the findings for a run with some settings, by check."""
    monkeypatch.setenv("UNFUSED_RAY_HOME", str(tmp_path / "home"))

    def find(**fields: Any) -> dict[str, Finding]:
        fields = {"output": str(tmp_path / "runs/one"), **fields}
        return {finding.check: finding for finding in examine.examine(TrainingConfig(**fields))}

    return find


@pytest.fixture
def every_node_says(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that changes the reports of all nodes."""

    def say(**fields: Any) -> None:
        monkeypatch.setattr(examine, "look", lambda output, gpus: replace(look(output, gpus), **fields))

    return say


def test_on_a_healthy_machine_all_is_well_and_nothing_is_left_behind(
    findings: Callable[..., dict[str, Finding]], tmp_path: Path
):
    found = findings()
    assert {finding.state for finding in found.values()} == {"ok"}, found
    checks = {"resources", "CPUs for Ray Data", "storage", "shared memory", "codecs", "tracker", "token", "versions"}
    assert set(found) == checks
    assert not list(tmp_path.iterdir())
    assert examine.exit_code(list(found.values())) == 0


@pytest.mark.parametrize(
    ("runtime", "found", "fix"),
    [
        ({"num_workers": 3}, "the cluster has 2", "lower runtime.num_workers"),
        ({"gpus_per_worker": 1}, "need 1 GPUs, the cluster has 0", "add nodes with GPUs"),
    ],
)
def test_a_request_that_the_cluster_cannot_meet_is_a_problem(
    findings: Callable[..., dict[str, Finding]], runtime: dict[str, float], found: str, fix: str
):
    resources = findings(runtime=RuntimeConfig(**runtime), batch={"blocks_per_step": 12})["resources"]
    assert resources.state == "problem"
    assert found in resources.found
    assert fix in resources.fix


def test_a_clustering_on_gpus_that_the_cluster_lacks_is_a_problem(tmp_path: Path):
    """The run would be refused, after it has computed statistics."""
    wanted = PretrainConfig(output=str(tmp_path / "run"), method=DecarConfig(assignment_gpus=0.5, assignment_shards=2))
    resources = next(finding for finding in examine.examine(wanted) if finding.check == "resources")
    assert resources.state == "problem"
    assert "need 1 GPUs, the cluster has 0" in resources.found


def test_storage_that_cannot_be_written_is_named_with_its_node(
    findings: Callable[..., dict[str, Finding]], tmp_path: Path
):
    (tmp_path / "file").write_text("")
    storage = findings(output=str(tmp_path / "file/run"))["storage"]
    assert storage.state == "problem"
    assert storage.found.startswith("127.0.0.1: cannot write")
    assert str(tmp_path / "file") in storage.found


def test_an_object_store_is_written_beside_the_run_and_left_as_it_was(
    findings: Callable[..., dict[str, Finding]], object_store: str
):
    store = boto3.client(
        "s3", endpoint_url=f"http://{object_store.split('=')[1].split('&')[0]}", region_name="us-east-1"
    )

    def objects() -> list[str]:
        return [entry["Key"] for entry in store.list_objects_v2(Bucket="bucket").get("Contents", []) if entry["Size"]]

    before = objects()
    assert findings(output=f"s3://bucket/doctor/run{object_store}")["storage"].state == "ok"
    assert objects() == before
    assert findings(output=f"s3://no-such-bucket{object_store}")["storage"].state == "problem"
    missing = findings(output=f"s3://no-such-bucket/doctor/run{object_store}")["storage"]
    assert missing.state == "problem"
    assert "no-such-bucket" in missing.found


@pytest.mark.parametrize(
    ("check", "report", "found"),
    [
        ("shared memory", {"shared_memory": 64 << 20}, "0.067 GB for an object store of"),
        ("codecs", {"codecs": {"MP3": "no decoder"}}, "MP3: no decoder"),
        ("versions", {"versions": {**versions(), "torch": "1.0"}}, "torch 1.0, here"),
    ],
)
def test_what_is_wrong_on_a_node_is_found(
    findings: Callable[..., dict[str, Finding]],
    every_node_says: Callable[..., None],
    check: str,
    report: dict[str, Any],
    found: str,
):
    every_node_says(**report)
    finding = findings()[check]
    assert finding.state == "problem"
    assert finding.found.startswith("127.0.0.1: ")
    assert found in finding.found
    assert finding.fix


@pytest.mark.parametrize(
    ("seen", "state", "words"),
    [
        ({"torch_gpus": None}, "warning", "no node with a GPU is up"),
        ({"torch_gpus": 0, "no_gpu": "the driver is too old"}, "problem", "torch sees none: the driver is too old"),
        ({"torch_gpus": 1, "faiss_gpus": 0}, "warning", "faiss sees none"),
        ({"torch_gpus": 1, "faiss_gpus": None}, "ok", "1 visible to torch (driver 575.57, torch's CUDA 13.0, faiss-"),
        ({"torch_gpus": 4, "faiss_gpus": 4}, "ok", "4 visible to torch and faiss"),
    ],
)
def test_gpus_are_looked_at_where_they_are(
    findings: Callable[..., dict[str, Finding]],
    every_node_says: Callable[..., None],
    seen: dict[str, Any],
    state: str,
    words: str,
):
    every_node_says(**seen, driver="575.57", cuda="13.0")
    asked = findings(runtime=RuntimeConfig(gpus_per_worker=1))["GPUs"]
    assert asked.state == state
    assert words in asked.found
    # A run without GPUs needs none, so a problem with GPUs that exist is only a warning.
    unasked = findings().get("GPUs")
    expected = None if seen["torch_gpus"] is None else state.replace("problem", "warning")
    assert (unasked.state if unasked else None) == expected


def test_a_machine_without_a_gpu_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    if torch.cuda.is_available():
        pytest.skip("torch sees a GPU")
    monkeypatch.setattr("unfused_ray.machine.nvidia._DRIVER", tmp_path / "version")
    assert look(str(tmp_path / "run"), True).no_gpu == (
        "no driver of NVIDIA is loaded" if torch.version.cuda else f"torch {torch.__version__} is built without CUDA"
    )
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  575.57.08  Sat May 24 2025\n")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    found = look(str(tmp_path / "run"), True)
    assert (found.driver, found.cuda, found.torch_gpus) == ("575.57.08", "13.0", 0)
    assert found.no_gpu
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\n"
    )
    assert look(str(tmp_path / "run"), True).driver == "580.95.05"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert look(str(tmp_path / "run"), True).no_gpu.startswith("CUDA_VISIBLE_DEVICES is empty")


def test_two_distributions_of_faiss_or_none_for_gpus_are_problems(
    findings: Callable[..., dict[str, Finding]], every_node_says: Callable[..., None]
):
    every_node_says(faiss={"faiss-cpu": "1.15.1", "faiss-gpu": "1.15.1"})
    both = findings()["faiss"]
    assert (both.state, "are the same module" in both.found) == ("problem", True)
    assert both.fix.startswith("pip uninstall faiss-cpu faiss-gpu, then install one")
    every_node_says(torch_gpus=1, faiss={"faiss-cpu": "1.15.1"}, faiss_gpus=None)
    assert "faiss" not in findings()
    wanted = PretrainConfig(output="/no/run", method=DecarConfig(assignment_gpus=0.5))
    report = replace(look("/tmp/run", False), torch_gpus=1, faiss={"faiss-cpu": "1"})
    (finding,) = gpus.look_at_faiss({"a": report}, wanted)
    assert (finding.state, "faiss-cpu 1, and method.assignment_gpus" in finding.found) == ("problem", True)
    assert gpus.wanted_by(wanted) == 0.5


def test_workers_on_several_nodes_are_told_how_fast_gradients_travel():
    (here,) = ray.nodes()
    runtime = RuntimeConfig(num_workers=4, gpus_per_worker=1)

    def nodes(*counts: float) -> list[dict[str, Any]]:
        return [{**here, "Resources": {"GPU": count}} for count in counts]

    assert not list(gpus.look_at_placement(nodes(), runtime))
    assert not list(gpus.look_at_placement(nodes(4, 1), runtime))
    (one,) = gpus.look_at_placement(nodes(1), runtime)
    assert one.found == "4 GPUs are asked for, and no node that is up has more than 1: gradients use the network"
    (several,) = gpus.look_at_placement(nodes(1, 2), runtime)
    assert re.search(r"between two nodes Ray moved [\d.e+]+ Gb/s", several.found)
    assert several.state == "warning" and "cluster placement group" in several.fix


def test_a_cluster_that_others_can_reach_needs_the_token_on_every_node(
    findings: Callable[..., dict[str, Finding]],
    every_node_says: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(examine.cluster, "is_one_machine", lambda: False)
    every_node_says(token=True)
    assert findings()["token"].state == "ok"
    every_node_says(token=False)
    token = findings()["token"]
    assert token.state == "problem"
    assert "RAY_AUTH_MODE=token" in token.fix


def test_what_lies_on_one_machine_is_found_before_the_autoscaler_has_added_another(
    findings: Callable[..., dict[str, Finding]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(examine.cluster, "is_one_machine", lambda: False)
    monkeypatch.setenv(examine.cluster.AUTOSCALER, '{"CPU": 64, "GPU": 4}')
    found = findings(runtime=RuntimeConfig(num_workers=4, gpus_per_worker=1), batch={"blocks_per_step": 4})
    assert (found["resources"].state, found["CPUs for Ray Data"].found[:2]) == ("ok", "60")
    assert "up to 64 and 4 with the autoscaler" in found["resources"].found
    assert found["storage"].state == "problem"
    assert "the cluster has an autoscaler" in found["storage"].found
    assert found["tracker"].state == "warning"
    assert found["tracker"].found.endswith("a file of this node, and ends with it; the cluster has an autoscaler")


def test_a_node_that_cannot_run_the_project_is_a_problem_and_not_a_crash(
    findings: Callable[..., dict[str, Finding]], monkeypatch: pytest.MonkeyPatch
):
    def fail(output: str, gpus: bool) -> None:
        raise ModuleNotFoundError("No module named 'soundfile'")

    monkeypatch.setattr(examine, "look", fail)
    nodes = findings()["nodes"]
    assert nodes.state == "problem"
    assert "No module named 'soundfile'" in nodes.found


def test_a_tracking_store_is_opened(
    findings: Callable[..., dict[str, Finding]], mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
):
    assert findings(tracking=TrackingConfig(uri=mlflow_server.uri))["tracker"].state == "ok"
    client, name = MlflowClient(tracking_uri=mlflow_server.uri), uuid.uuid4().hex
    client.delete_experiment(client.create_experiment(name))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    deleted = findings()["tracker"]
    assert deleted.state == "problem"
    assert f"MLFLOW_TRACKING_URI={mlflow_server.uri}, MLFLOW_EXPERIMENT_NAME={name}" in deleted.found
    assert "mlflow experiments restore --experiment-id" in deleted.fix
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    relative = findings()["tracker"]
    assert (relative.state, "sqlite:////absolute/path/mlflow.db" in relative.fix) == ("problem", True)
    away = findings(tracking=TrackingConfig(uri="http://127.0.0.1:9"))["tracker"]
    assert away.state == "problem"
    assert "http://127.0.0.1:9" in away.found


def test_findings_are_shown_as_they_are():
    console = plain_console(file=io.StringIO(), width=200)
    console.print(examine.table([Finding("storage", "problem", "cannot write [bold]x[/]", "see [red]")]))
    assert "cannot write [bold]x[/]" in console.file.getvalue()
    assert "see [red]" in console.file.getvalue()


def test_a_path_that_is_longer_than_a_line_is_shown_whole():
    console = Console(file=io.StringIO(), width=80)
    path = "s3://bucket/" + "0123456789" * 20
    console.print(examine.table([Finding("storage", "problem", path, "see that every node's role may write there")]))
    assert path.count("0123456789") * 10 == sum(letter.isdigit() for letter in console.file.getvalue()) - 1  # "s3"


def test_the_command_ends_with_1_where_something_is_missing_and_names_unknown_recipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: Callable[..., Ended]
):
    monkeypatch.setenv("UNFUSED_RAY_HOME", str(tmp_path))
    ended = command_line("doctor", "tiny")
    assert ended.code == 0 and "storage" in ended.out
    ended = command_line("doctor", "decar-v2-audioset", "--tracking", "http://127.0.0.1:9")
    assert ended.code == 1 and "problem" in ended.out
    ended = command_line("doctor", "unheard-of")
    assert ended.code == 2 and "unheard-of is no recipe: name one of" in ended.err
