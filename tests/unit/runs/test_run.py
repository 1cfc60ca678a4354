"""A run's folder: settings that may change, versions, status and environments."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from unfused_ray.config import DistillConfig, PretrainConfig
from unfused_ray.runs.checkpoints import CheckpointStore, Position
from unfused_ray.runs.files import read_file, write_file
from unfused_ray.runs.reader import RunReader
from unfused_ray.runs.run import ConfigurationChangedError, Run
from unfused_ray.runs.status import Status

FACTS = {"num_clips": 10, "data_checksums": ["a"]}


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("seed", 4, "seed: 0 → 4"),
        ("batch.block", 32, "batch.block: 64 → 32"),
        ("batch.blocks_per_step", 4, "batch.blocks_per_step: 2 → 4"),
        ("method.num_clusters", (7, 8), "method.num_clusters: [512] → [7, 8]"),
        ("encoder.width", 1024, "encoder.width: 2048 → 1024"),
        ("optimizer.lr", 0.1, "optimizer.lr: 0.0003 → 0.1"),
        ("crop.seconds", 2.0, "crop.seconds: 0.95 → 2.0"),
        ("runtime.precision", "bfloat16", 'runtime.precision: "auto" → "bfloat16"'),
    ],
)
def test_a_run_refuses_other_settings_and_shows_the_difference(
    name: str, value: Any, line: str, tmp_path: Path
) -> None:
    Run(str(tmp_path)).open(PretrainConfig(), FACTS)
    commit_checkpoint(tmp_path)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(ConfigurationChangedError) as refusal:
        Run(str(tmp_path)).open(PretrainConfig().replace({name: value}), FACTS)
    assert [text for text in str(refusal.value).splitlines() if "→" in text] == [f"  {line}"]
    assert "--fork" in str(refusal.value)
    assert (tmp_path / "run.json").read_bytes() == before


def commit_checkpoint(folder: Path) -> None:
    manifest = folder / "checkpoints" / "e0000-s000001" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")


def test_a_run_without_a_checkpoint_begins_anew_with_other_settings(tmp_path: Path) -> None:
    """So a command that failed in its first minutes can be corrected."""
    run = Run(str(tmp_path))
    first = run.open(PretrainConfig(), FACTS)
    assert run.open(PretrainConfig(), FACTS) == first
    (tmp_path / "assignments" / "epoch-0000").mkdir(parents=True)
    write_file(run.uri, "diverged.json", {"epoch": 0, "step": 1, "clip_ids": [3]})
    corrected = PretrainConfig().replace({"crop.seconds": 2.0})
    second = run.open(corrected, FACTS)
    assert second["config"] == run.record()["config"] == corrected.model_dump(mode="json")
    assert second["id"] != first["id"]
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_a_run_refuses_other_data(tmp_path: Path) -> None:
    Run(str(tmp_path)).open(PretrainConfig(), FACTS)
    commit_checkpoint(tmp_path)
    with pytest.raises(ConfigurationChangedError, match='data_checksums: \\["a"\\] → \\["b"\\]'):
        Run(str(tmp_path)).open(PretrainConfig(), {**FACTS, "data_checksums": ["b"]})


def test_a_run_goes_on_with_other_workers_epochs_and_paths(tmp_path: Path) -> None:
    first = Run(str(tmp_path)).open(PretrainConfig(data=("here",)), FACTS)
    nested = {"runtime.num_workers": 2, "checkpoint.keep": 9, "tracking.uri": "http://127.0.0.1:5000"}
    config = PretrainConfig().replace(nested, data=("there",), output="moved", epochs=7)
    second = Run(str(tmp_path)).open(config, FACTS)
    assert (second["id"], second["created"]) == (first["id"], first["created"])
    assert (
        second["config"] == json.loads((tmp_path / "run.json").read_text())["config"] == config.model_dump(mode="json")
    )


@pytest.mark.parametrize("version", [None, 1, 99])
def test_a_run_of_another_version_is_refused_with_the_version_named(version: int | None, tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    run.open(PretrainConfig(), FACTS)
    run.write_status(Status("stopped", 1, 0))
    run.write_history([{"epoch": 0.0}])
    for file in tmp_path.iterdir():
        content = json.loads(file.read_text())
        del content["format_version"]
        file.write_text(json.dumps(content if version is None else {"format_version": version, **content}))
    told = f"format_version {version or 'none'}.*, this version reads 2: train the run anew"
    for read in (run.record, run.status, run.history, lambda: run.open(PretrainConfig(), FACTS)):
        with pytest.raises(ValueError, match=told):
            read()


def test_a_run_whose_settings_are_not_those_of_this_version_is_refused(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    record = run.open(PretrainConfig(), FACTS)
    write_file(run.uri, "run.json", {**record, "config": {**record["config"], "epoch": 3}})
    with pytest.raises(ValueError, match=r"has settings of another version:\nepoch=3: Extra inputs"):
        run.record()


@pytest.mark.parametrize("name", ["assignments/homework.txt", "best/photo.jpg", "diverged.json"])
def test_a_run_does_not_begin_in_a_folder_whose_content_it_would_delete(name: str, tmp_path: Path) -> None:
    theirs = tmp_path / name
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("not of a run")
    with pytest.raises(ValueError, match=rf"holds {name.split('/')[0]}, but no run\.json.*Give another --output"):
        Run(str(tmp_path)).open(PretrainConfig(), FACTS)
    assert theirs.read_text() == "not of a run"


def test_a_run_does_not_begin_among_shards_or_vectors(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds manifest\.json: it is a prepared source.*Give another --output"):
        Run(str(tmp_path)).open(PretrainConfig(), FACTS)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_a_setting_that_came_after_the_run_has_its_default(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    record = run.open(PretrainConfig(), FACTS)
    del record["config"]["method"]["assignment_gpus"]
    write_file(run.uri, "run.json", record)
    assert run.record()["config"] == PretrainConfig().model_dump(mode="json")
    assert run.changes(PretrainConfig(), FACTS) == []
    (change,) = run.changes(PretrainConfig().replace({"method.assignment_gpus": 0.5}), FACTS)
    assert "assignment_gpus: 0.0 → 0.5" in change


def test_a_run_that_other_code_has_continued_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = Run(str(tmp_path))
    first, second = ({"code": code, "torch": "2.9", "machine": "one"} for code in "ab")
    run.open(PretrainConfig(), FACTS, {**first, "code": "crashed"})
    assert "earlier_environments" not in run.open(PretrainConfig(), FACTS, first)  # the first had trained nothing
    assert not RunReader(run.uri).earlier
    CheckpointStore(run.uri).commit(Position(0, 1), {}, {})
    run.open(PretrainConfig(), FACTS, {**first, "machine": "another"})
    assert not caplog.text
    for _ in range(2):
        record = run.open(PretrainConfig(), FACTS, second)
    assert f'{run.uri} is resumed with other code or packages than before: code: "a" → "b"' in caplog.text
    assert record["environment"] == second
    assert record["earlier_environments"] == [first, {**first, "machine": "another"}]
    assert RunReader(run.uri).earlier == "code a; code a, machine another"
    record = read_file(run.uri, "run.json")
    del record["earlier_environments"]  # as written by older versions
    write_file(run.uri, "run.json", record)
    assert RunReader(run.uri).earlier == ""


def test_status_is_what_was_said_last(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    assert run.status() is None
    run.write_status(Status("running", 0, 0))
    run.write_status(Status("stopped", 3, 14, "why"))
    status = run.status()
    assert status is not None
    assert (status.state, status.epoch, status.step, status.message) == ("stopped", 3, 14, "why")
    assert status.updated == pytest.approx(time.time(), abs=60)


def test_a_run_of_before_idle_settings_were_refused_is_resumed_without_them(tmp_path: Path) -> None:
    idle = DistillConfig().replace({"method.beta": 0.0, "method.mse_of": "features"})
    run = Run(str(tmp_path))
    run.open(idle, {})
    CheckpointStore(str(tmp_path)).commit(Position(0, 1), {}, {})
    assert run.changes(idle.replace({"method.mse_of": "logits"}), {}) == []
    assert run.changes(idle.replace({"method.mse_of": "logits", "method.beta": 0.1}), {}) == ["method.beta: 0.0 → 0.1"]
