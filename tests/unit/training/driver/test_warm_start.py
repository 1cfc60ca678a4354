"""Warm starts and forks begin with another run's weights, or are refused before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from support.runs import STEPS, history, initial_weights, train, weights

from unfused_ray.config import PretrainConfig, RuntimeConfig
from unfused_ray.runs.run import ConfigurationChangedError
from unfused_ray.training.driver.launch import check
from unfused_ray.training.runtimes.in_process import InProcess


def test_a_warm_start_takes_a_runs_weights_to_other_data_and_clusters(
    config: Callable[..., PretrainConfig],
    undisturbed: Callable[[str], Path],
    other_source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    teacher = undisturbed("bank")
    job = config("run", init_from=str(teacher), data=(str(other_source),), method__num_clusters=(6,))
    model = safetensors.torch.load_file(max((teacher / "checkpoints").iterdir()) / "model.safetensors")
    beginning = initial_weights(monkeypatch, job)
    assert all(torch.equal(beginning[name], model[name]) for name in model)
    assert train(job).state == "finished"
    assert [entry["epoch"] for entry in history(Path(job.output))] == [0, 1]


def test_a_warm_start_takes_an_exported_encoders_weights(
    config: Callable[..., PretrainConfig],
    undisturbed: Callable[[str], Path],
    other_source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    export = undisturbed("bank") / "encoder"
    job = config("run", init_from=str(export), data=(str(other_source),), seed=5)
    exported = safetensors.torch.load_file(export / "encoder.safetensors")
    beginning = initial_weights(monkeypatch, job)
    assert all(torch.equal(beginning[f"encoder.{name}"], exported[name]) for name in exported)
    assert train(job).state == "finished"


def test_a_warm_start_from_nothing_is_refused_before_anything_is_written(
    config: Callable[..., PretrainConfig], tmp_path: Path
) -> None:
    job = config("run", init_from=str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"init_from=.*nowhere"):
        train(job)
    assert not Path(job.output).exists()


def test_a_fork_goes_on_from_another_run_with_other_clusters(
    config: Callable[..., PretrainConfig], stop_after: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    trunk = config("trunk")
    stop_after(STEPS + 1)
    train(trunk)
    stop_after(-1)
    branch = config("branch", fork=trunk.output, method__num_clusters=(5, 4))
    model = safetensors.torch.load_file(Path(trunk.output, "checkpoints/e0001-s000001/model.safetensors"))
    beginning = initial_weights(monkeypatch, branch)
    assert all(torch.equal(beginning[name], model[name]) for name in model)
    assert train(branch).state == "finished"
    first, second = history(Path(branch.output))
    assert first == history(Path(trunk.output))[0]
    assert "head1/inertia" in second
    assert weights(Path(trunk.output)).keys() == weights(Path(branch.output)).keys()


@pytest.mark.parametrize(
    ("fields", "setting"),
    [({"encoder__width": 48}, r"encoder\.width: 32 → 48"), ({"optimizer__name": "sgd"}, r"optimizer\.name")],
)
def test_a_fork_into_other_shapes_is_refused_before_anything_is_written(
    config: Callable[..., PretrainConfig], fields: dict[str, Any], setting: str
) -> None:
    trunk = config("trunk")
    train(trunk)
    branch = config("branch", fork=trunk.output, **fields)
    with pytest.raises(ValueError, match=setting):
        train(branch)
    assert not Path(branch.output).exists()


def test_a_fork_and_a_warm_start_may_differ_in_all_but_shapes(
    config: Callable[..., PretrainConfig], undisturbed: Callable[[str], Path]
) -> None:
    trunk = undisturbed("bank")
    check(config("branch", fork=str(trunk), epochs=3, encoder__dropout=0.5, front_end__f_max=7000.0))
    check(config("pupil", init_from=str(trunk / "encoder"), encoder__dropout=0.5))


@pytest.mark.parametrize("origin", ["", "encoder"], ids=["run", "export"])
@pytest.mark.parametrize(
    ("fields", "setting"),
    [({"encoder__channels": 4}, r"encoder\.channels: 8 → 4"), ({"front_end__num_mels": 32}, r"num_mels: 64 → 32")],
)
def test_a_warm_start_from_other_shapes_is_refused_before_anything_is_written(
    config: Callable[..., PretrainConfig],
    undisturbed: Callable[[str], Path],
    origin: str,
    fields: dict[str, Any],
    setting: str,
) -> None:
    job = config("run", init_from=str(undisturbed("bank") / origin), **fields)
    with pytest.raises(ValueError, match=setting):
        train(job)
    assert not Path(job.output).exists()


def test_a_fork_with_no_epoch_left_is_refused_before_anything_is_written(
    config: Callable[..., PretrainConfig], undisturbed: Callable[[str], Path]
) -> None:
    branch = config("branch", fork=str(undisturbed("bank")), method__num_clusters=(5,))
    with pytest.raises(ValueError, match=r"epochs=2 leaves nothing to train.*--epochs 3"):
        train(branch)
    assert not Path(branch.output).exists()


def test_the_workers_read_the_run_that_a_fork_begins_with_until_it_has_begun(
    config: Callable[..., PretrainConfig], undisturbed: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session must get the fork's folder to refuse local paths, with which every worker group would fail."""
    trunk, session, read = str(undisturbed("bank")), InProcess.session, []

    def noted(self: InProcess, runtime: RuntimeConfig, sources: Mapping[str, tuple[str, ...]], *others: Any) -> Any:
        read.append(sources)
        return session(self, runtime, sources, *others)

    monkeypatch.setattr(InProcess, "session", noted)
    for epochs in (3, 4):
        assert train(config("branch", fork=trunk, epochs=epochs)).state == "finished"
    assert [sources.get("fork") for sources in read] == [(trunk,), None]


def test_a_fork_of_nothing_is_refused_before_anything_is_written(
    config: Callable[..., PretrainConfig], tmp_path: Path
) -> None:
    job = config("run", fork=str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"fork=.*nowhere"):
        train(job)
    assert not Path(job.output).exists()


def test_a_resume_begins_with_nothing_else_than_the_run_did(
    config: Callable[..., PretrainConfig],
    undisturbed: Callable[[str], Path],
    stop_after: Callable[[int], None],
    tmp_path: Path,
) -> None:
    trunk, other = undisturbed("bank"), undisturbed("average")
    stop_after(1)
    train(config("run", init_from=str(trunk)))
    stop_after(2)
    moved = tmp_path / "moved"
    moved.symlink_to(trunk)
    for changed, change in (
        ({"init_from": str(other)}, f"init_from: the run began with {trunk}, not with {other}"),
        ({}, f"init_from: the run began with {trunk}"),
        ({"fork": str(trunk), "epochs": 3}, f"fork: the run began with none, not with {trunk}"),
    ):
        with pytest.raises(ConfigurationChangedError, match=change):
            train(config("run", **changed))
    assert train(config("run", init_from=str(moved))).state == "stopped"
    moved.unlink()
    stop_after(-1)
    assert train(config("run", init_from=str(moved))).state == "finished"  # the origin is gone, but the run has begun

    stop_after(1)
    train(config("plain"))
    with pytest.raises(ConfigurationChangedError, match=f"init_from: the run began with none, not with {trunk}"):
        train(config("plain", init_from=str(trunk)))


def test_a_run_of_before_origins_were_kept_is_resumed(
    config: Callable[..., PretrainConfig], undisturbed: Callable[[str], Path], stop_after: Callable[[int], None]
) -> None:
    job = config("run", init_from=str(undisturbed("bank")))
    stop_after(1)
    train(job)
    stop_after(-1)
    file = Path(job.output, "run.json")
    record = json.loads(file.read_text())
    del record["facts"]["init_from_identity"]
    file.write_text(json.dumps(record))
    assert train(job).state == "finished"


def test_a_fork_that_is_to_stop_before_it_begins_is_refused(
    config: Callable[..., PretrainConfig], undisturbed: Callable[[str], Path]
) -> None:
    branch = config("branch", fork=str(undisturbed("bank")), epochs=9, stop_after=1)
    with pytest.raises(ValueError, match=r"stop_after=1 leaves nothing to train: .* has 2 epochs.* --stop-after 3"):
        train(branch)
