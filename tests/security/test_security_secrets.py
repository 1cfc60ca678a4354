"""Secrets stay where they belong: a URI that holds one is refused, and one of the environment is written nowhere."""

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

from unfused_ray import __main__, cli, logs, storage
from unfused_ray.recipes import PRETRAIN

SECRET = "hunter2-open-sesame"
URIS = {
    "user and password": f"s3://alice:{SECRET}@bucket/folder",
    "option": f"s3://bucket/folder?region=us-east-1&secret_key={SECRET}",
    "Azure SAS": f"https://account.blob.core.windows.net/container?sv=2024&sig={SECRET}",
    "server": f"https://alice:{SECRET}@tracking.example",
}
FIELDS: list[tuple[Callable[[], int], tuple[str, ...], str]] = [
    (cli.prepare_job, ("--output", "x", "--source"), "source"),
    (cli.prepare_job, ("--source", "x", "--output"), "output"),
    (cli.pretrain_job, ("tiny", "--data"), "data"),
    (cli.pretrain_job, ("tiny", "--data", "x", "--output"), "output"),
    (cli.pretrain_job, ("tiny", "--data", "x", "--tracking.uri"), "tracking.uri"),
    (cli.distill_job, ("tiny", "--data", "x", "--teacher"), "teacher"),
    (cli.evaluate_job, ("--tasks",), "tasks"),
    (cli.evaluate_job, ("--tasks", "x", "--cache"), "cache"),
    (cli.embed_job, ("--source", "x", "--encoder"), "encoder"),
    (lambda: cli.sweep_job({}), ("tiny", "--distill.teacher"), "distill.teacher"),
]


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """End of a job with some arguments: its exit code, and all that it has printed."""
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setattr(logs, "configure", lambda: None)  # pytest's own logging stays

    def run(job: Callable[[], int], *arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["job", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main(job)
        return int(end.value.code or 0), "".join(capfd.readouterr())

    return run


@pytest.mark.parametrize("uri", URIS.values(), ids=URIS)
@pytest.mark.parametrize(("job", "arguments", "field"), FIELDS, ids=[field for *_, field in FIELDS])
@pytest.mark.parametrize("flag", ["--print-config", "--dry-run"])
def test_a_uri_with_a_secret_is_refused_by_every_job_and_not_shown(
    ended: Callable[..., tuple[int, str]],
    job: Callable[[], int],
    arguments: tuple[str, ...],
    field: str,
    uri: str,
    flag: str,
) -> None:
    code, printed = ended(job, *arguments, uri, flag)
    assert code == 2
    assert f"{field}=" in printed
    assert "AWS_SECRET_ACCESS_KEY" in printed
    assert SECRET not in printed


@pytest.mark.parametrize("uri", URIS.values(), ids=URIS)
def test_a_row_of_a_csv_with_a_secret_is_refused_and_not_shown(
    ended: Callable[..., tuple[int, str]], tmp_path: Path, uri: str
) -> None:
    (tmp_path / "x.csv").write_text(f"files,label\na.wav,dog\n{uri},cat\n")
    code, printed = ended(cli.prepare_job, "--source", str(tmp_path / "x.csv"), "--output", str(tmp_path / "out"))
    assert code == 2
    assert f"line 3 of {tmp_path / 'x.csv'}" in printed
    assert "AWS_SECRET_ACCESS_KEY" in printed
    assert SECRET not in printed
    assert not (tmp_path / "out").exists()


def test_a_recipe_of_ones_own_with_a_secret_is_refused(ended: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    config = PRETRAIN["tiny"][1].model_dump(mode="json")
    config["tracking"]["uri"] = URIS["server"]
    (tmp_path / "mine.json").write_text(json.dumps(config))
    code, printed = ended(cli.pretrain_job, str(tmp_path / "mine.json"))
    assert (code, SECRET in printed) == (2, False)


@pytest.mark.parametrize("uri", [URIS["user and password"], URIS["option"]])
def test_the_errors_of_commands_do_not_show_a_secret(ended: Callable[..., tuple[int, str]], uri: str) -> None:
    code, printed = ended(lambda: __main__.report((uri,)))
    assert code == 2
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
