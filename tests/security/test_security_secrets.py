"""A URI that holds a secret is refused and not shown, and secrets of the environment are written nowhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.paths import ROOT
from support.sources import write_source
from support.terminal import Ended

from unfused_ray import logs, storage
from unfused_ray.recipes import PRETRAIN

SECRET = "hunter2-open-sesame"
URIS = {
    "user and password": f"s3://alice:{SECRET}@bucket/folder",
    "option": f"s3://bucket/folder?region=us-east-1&secret_key={SECRET}",
    "Azure SAS": f"https://account.blob.core.windows.net/container?sv=2024&sig={SECRET}",
    "server": f"https://alice:{SECRET}@tracking.example",
}
FIELDS: list[tuple[tuple[str, ...], str]] = [
    (("prepare", "--output", "x", "--source"), "source"),
    (("prepare", "--source", "x", "--output"), "output"),
    (("pretrain", "tiny", "--data"), "data"),
    (("pretrain", "tiny", "--data", "x", "--output"), "output"),
    (("pretrain", "tiny", "--data", "x", "--tracking.uri"), "tracking.uri"),
    (("distill", "tiny", "--data", "x", "--teacher"), "teacher"),
    (
        (
            "evaluate",
            "--tasks",
        ),
        "tasks",
    ),
    (("evaluate", "--tasks", "x", "--cache"), "cache"),
    (("embed", "--source", "x", "--encoder"), "encoder"),
    (("sweep", "tiny", "--distill.teacher"), "distill.teacher"),
]


@pytest.mark.parametrize("uri", URIS.values(), ids=URIS)
@pytest.mark.parametrize(("arguments", "field"), FIELDS, ids=[" ".join((given[0], field)) for given, field in FIELDS])
@pytest.mark.parametrize("flag", ["--print-config", "--dry-run"])
def test_a_uri_with_a_secret_is_refused_by_every_job_and_not_shown(
    command_line: Callable[..., Ended],
    arguments: tuple[str, ...],
    field: str,
    uri: str,
    flag: str,
) -> None:
    ended = command_line(*arguments, uri, flag)
    printed = ended.out + ended.err
    assert ended.code == 2
    assert f"{field}=" in printed
    assert "AWS_SECRET_ACCESS_KEY" in printed
    assert SECRET not in printed


@pytest.mark.parametrize("uri", URIS.values(), ids=URIS)
def test_a_row_of_a_csv_with_a_secret_is_refused_and_not_shown(
    command_line: Callable[..., Ended], tmp_path: Path, uri: str
) -> None:
    (tmp_path / "x.csv").write_text(f"files,label\na.wav,dog\n{uri},cat\n")
    ended = command_line("prepare", "--source", str(tmp_path / "x.csv"), "--output", str(tmp_path / "out"))
    printed = ended.out + ended.err
    assert ended.code == 2
    assert f"line 3 of {tmp_path / 'x.csv'}" in printed
    assert "AWS_SECRET_ACCESS_KEY" in printed
    assert SECRET not in printed
    assert not (tmp_path / "out").exists()


def test_a_recipe_of_ones_own_with_a_secret_is_refused(command_line: Callable[..., Ended], tmp_path: Path) -> None:
    config = PRETRAIN["tiny"][1].model_dump(mode="json")
    config["tracking"]["uri"] = URIS["server"]
    (tmp_path / "mine.json").write_text(json.dumps(config))
    ended = command_line("pretrain", str(tmp_path / "mine.json"))
    assert (ended.code, SECRET in ended.out + ended.err) == (2, False)


@pytest.mark.parametrize("uri", [URIS["user and password"], URIS["option"]])
def test_the_errors_of_commands_do_not_show_a_secret(command_line: Callable[..., Ended], uri: str) -> None:
    ended = command_line("report", uri)
    printed = ended.out + ended.err
    assert ended.code == 2
    assert "bucket" in printed
    assert SECRET not in printed


def test_a_secret_of_the_environment_is_written_nowhere(object_store: str, tmp_path: Path) -> None:
    source, log = tmp_path / "source", tmp_path / "log.jsonl"
    write_source(source, [[40]])
    run = f"s3://bucket/secret-free{object_store}"
    secrets = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
    environment = {**os.environ, **dict.fromkeys(secrets, SECRET), "UNFUSED_RAY_HOME": str(tmp_path / "home")}
    environment[logs.LOG_FILE] = str(log)
    pretrain = ["jobs/pretrain.py", "tiny", "--data", str(source), "--output", run, "--runtime.kind", "in-process"]
    printed = ""
    for command in (pretrain, ["-m", "unfused_ray", "report", run, "--output", str(tmp_path / "report.html")]):
        ended = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        printed += ended.stdout + ended.stderr
    written = {uri: storage.read_bytes(uri) for uri in storage.list_files(run, recursive=True)}
    written |= {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {"run.json", "mlflow.db", "report.html", "log.jsonl"} <= {storage.name(uri) for uri in written}
    assert SECRET not in printed
    assert [uri for uri, data in written.items() if SECRET.encode() in data] == []

    records = [json.loads(line) for line in log.read_text().splitlines()]
    record = json.loads(next(data for uri, data in written.items() if storage.name(uri) == "run.json"))
    of_run = [said for said in records if said.get("run") == record["id"]]
    assert of_run
    assert all(
        {"time", "level", "logger", "message", "host", "pid", "stage", "epoch", "step"} <= set(s) for s in of_run
    )
    figures = [said["figures"] for said in of_run if "figures" in said]
    assert figures
