"""A run's folder: which settings may change, and what it says of itself."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from unfused_ray.config import PretrainConfig
from unfused_ray.runs.run import ConfigurationChangedError, Run
from unfused_ray.runs.status import Status

FACTS = {"num_clips": 10, "data_checksums": ["a"]}


def changed(**groups: Any) -> PretrainConfig:
    """The default configuration with some fields of some groups changed."""
    config = PretrainConfig()
    update = {
        name: getattr(config, name).model_copy(update=value) if isinstance(value, dict) else value
        for name, value in groups.items()
    }
    return config.model_copy(update=update)


@pytest.mark.parametrize(
    ("groups", "line"),
    [
        ({"seed": 4}, "seed: 0 → 4"),
        ({"batch": {"block": 32}}, "batch.block: 64 → 32"),
        ({"batch": {"blocks_per_step": 4}}, "batch.blocks_per_step: 2 → 4"),
        ({"method": {"num_clusters": (7, 8)}}, "method.num_clusters: [512] → [7, 8]"),
        ({"encoder": {"width": 1024}}, "encoder.width: 2048 → 1024"),
        ({"optimizer": {"lr": 0.1}}, "optimizer.lr: 0.0003 → 0.1"),
        ({"crop": {"seconds": 2.0}}, "crop.seconds: 0.95 → 2.0"),
        ({"runtime": {"precision": "bfloat16"}}, 'runtime.precision: "auto" → "bfloat16"'),
    ],
)
def test_a_run_refuses_other_settings_and_shows_the_difference(
    groups: dict[str, Any], line: str, tmp_path: Path
) -> None:
    Run(str(tmp_path)).open(PretrainConfig(), FACTS)
    commit_checkpoint(tmp_path)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(ConfigurationChangedError) as refusal:
        Run(str(tmp_path)).open(changed(**groups), FACTS)
    assert [text for text in str(refusal.value).splitlines() if "→" in text] == [f"  {line}"]
    assert "--fork" in str(refusal.value)
    assert (tmp_path / "run.json").read_bytes() == before


def commit_checkpoint(folder: Path) -> None:
    manifest = folder / "checkpoints" / "e0000-s000001" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")


def test_a_run_without_a_checkpoint_begins_anew_with_other_settings(tmp_path: Path) -> None:
    """A command that failed in its first minutes can be corrected."""
    run = Run(str(tmp_path))
    first = run.open(PretrainConfig(), FACTS)
    assert run.open(PretrainConfig(), FACTS) == first
    (tmp_path / "assignments" / "epoch-0000").mkdir(parents=True)
    corrected = changed(crop={"seconds": 2.0})
    second = run.open(corrected, FACTS)
    assert second["config"] == run.record()["config"] == corrected.model_dump(mode="json")
    assert second["id"] != first["id"]
    assert not (tmp_path / "assignments").exists()


def test_a_run_refuses_other_data(tmp_path: Path) -> None:
    Run(str(tmp_path)).open(PretrainConfig(), FACTS)
    commit_checkpoint(tmp_path)
    with pytest.raises(ConfigurationChangedError, match='data_checksums: \\["a"\\] → \\["b"\\]'):
        Run(str(tmp_path)).open(PretrainConfig(), {**FACTS, "data_checksums": ["b"]})


def test_a_run_goes_on_with_other_workers_epochs_and_paths(tmp_path: Path) -> None:
    first = Run(str(tmp_path)).open(PretrainConfig(data=("here",)), FACTS)
    config = changed(
        data=("there",),
        output="moved",
        epochs=7,
        runtime={"num_workers": 2},
        checkpoint={"keep": 9},
        tracking={"uri": "http://127.0.0.1:5000"},
    )
    second = Run(str(tmp_path)).open(config, FACTS)
    assert (second["id"], second["created"]) == (first["id"], first["created"])
    assert (
        second["config"] == json.loads((tmp_path / "run.json").read_text())["config"] == config.model_dump(mode="json")
    )


def test_status_is_what_was_said_last(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    assert run.status() is None
    run.write_status(Status("running", 0, 0))
    run.write_status(Status("stopped", 3, 14, "why"))
    status = run.status()
    assert status is not None
    assert (status.state, status.epoch, status.step, status.message) == ("stopped", 3, 14, "why")
    assert status.updated == pytest.approx(time.time(), abs=60)
