"""A training that cannot work, or that would change a run, is refused before anything is written."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from support.runs import STEPS, assert_equal_runs, train, weights

from unfused_ray import lease
from unfused_ray.config import PretrainConfig
from unfused_ray.runs import run
from unfused_ray.runs.files import write_file
from unfused_ray.runs.status import State, Status
from unfused_ray.training.driver import launch
from unfused_ray.training.driver.launch import check, describe
from unfused_ray.training.runtimes.in_process import InProcess
from unfused_ray.training.stages.pretraining import Pretraining


@pytest.mark.parametrize(
    ("fields", "setting"),
    [
        ({"crop__seconds": 0.05}, r"crop\.seconds=0\.05 must be at least 0\.07"),
        ({"front_end__num_mels": 60}, r"front_end\.num_mels=60 must be a multiple of 8"),
    ],
)
def test_what_the_encoder_cannot_halve_is_refused_at_once(
    config: Callable[..., PretrainConfig], fields: dict[str, Any], setting: str
) -> None:
    with pytest.raises(ValueError, match=setting):
        config("run", **fields)
    config("run", crop__seconds=0.07)


def test_a_backend_that_torch_does_not_have_is_refused(config: Callable[..., PretrainConfig]) -> None:
    with pytest.raises(ValueError, match=r"runtime\.compile_backend=inductr is not one of .*inductor"):
        check(config("run", runtime__compile_backend="inductr"))


def test_a_relative_sqlite_file_is_refused(config: Callable[..., PretrainConfig]) -> None:
    job = config("run", tracking__uri="sqlite:///mlflow.db")
    with pytest.raises(ValueError, match=r"tracking\.uri=sqlite:///mlflow\.db is relative"):
        train(job)
    assert not Path(job.output).exists()


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"seed": 1}, "seed"),
        ({"batch__block": 16}, "batch.block"),
        ({"batch__blocks_per_step": 2}, "batch.blocks_per_step"),
        ({"method__num_clusters": (7,)}, "method.num_clusters"),
        ({"encoder__width": 16}, "encoder.width"),
    ],
)
def test_a_run_is_not_resumed_with_other_settings(
    fields: dict[str, Any],
    name: str,
    config: Callable[..., PretrainConfig],
    stop_after: Callable[[int], None],
) -> None:
    stop_after(1)
    train(config("run"))
    before = weights(Path(config("run").output))
    with pytest.raises(run.ConfigurationChangedError, match=f"  {re.escape(name)}: "):
        train(config("run", **fields))
    after = weights(Path(config("run").output))
    assert all(np.array_equal(before[key], after[key]) for key in before)


def test_a_run_is_not_resumed_on_other_data_but_on_the_same_in_another_place(
    config: Callable[..., PretrainConfig],
    source: Path,
    other_source: Path,
    tmp_path: Path,
    stop_after: Callable[[int], None],
    undisturbed: Callable[[str], Path],
) -> None:
    stop_after(1)
    train(config("run"))
    stop_after(-1)
    with pytest.raises(run.ConfigurationChangedError, match="data_checksums"):
        train(config("run", data=(str(other_source),)))
    moved = tmp_path / "moved"
    moved.symlink_to(source)
    train(config("run", data=(str(moved),)))
    assert_equal_runs(Path(config("run").output), undisturbed("bank"))


def test_a_run_does_not_stop_before_where_it_stands(
    config: Callable[..., PretrainConfig], stop_after: Callable[[int], None]
) -> None:
    stop_after(STEPS + 1)
    assert train(config("run")).state == "stopped"
    with pytest.raises(
        ValueError, match=r"stop_after=1 lies before the position of .*run, after 1 epochs, [12] steps: give"
    ):
        train(config("run", stop_after=1))
    with pytest.raises(
        ValueError, match=r"epochs=1 lies before the position of .*run, after 1 epochs, [12] steps: give"
    ):
        train(config("run", epochs=1))


def test_a_finished_run_says_so_though_the_driver_died_before_it_could(config: Callable[..., PretrainConfig]) -> None:
    job = config("run")
    train(job)
    run.Run(job.output).write_status(Status("running", 1, 2))
    assert train(job).state == "finished"
    status = run.Run(job.output).status()
    assert status is not None and (status.state, status.epoch) == ("finished", job.epochs)
    run.Run(job.output).write_status(replace(status, message="signs of a collapse"))
    assert train(job).state == "finished"
    kept = run.Run(job.output).status()
    assert kept is not None and kept.message == "signs of a collapse"


def test_a_finished_run_whose_checkpoints_are_gone_keeps_its_network(config: Callable[..., PretrainConfig]) -> None:
    job = config("run")
    assert train(job).state == "finished"
    shutil.rmtree(Path(job.output, "checkpoints"))
    network = Path(job.output, "encoder", "encoder.safetensors")
    before = network.read_bytes()
    status = train(job)
    assert (status.state, status.epoch) == ("finished", job.epochs)
    for other in (job.replace(seed=1), job.replace(epochs=job.epochs + 1)):
        with pytest.raises(ValueError, match=r"holds the network of \d+ epochs but no checkpoint any more"):
            train(other)
    assert network.read_bytes() == before
    out = StringIO()
    Console(file=out, width=200).print(describe(check(job.replace(seed=1))))
    assert "refused" in out.getvalue()


@pytest.mark.parametrize(
    ("state", "remedies", "words"),
    [
        ("diverged", [{"epochs": 3}, {"runtime__threads": 2}], r"has diverged in epoch 2 before step 0, .* lower"),
        ("collapsed", [{"health__on_collapse": "warn"}], r"has ended .*=stop: all alike\. Give --health"),
    ],
)
def test_a_run_that_would_end_badly_again_is_refused_unless_something_has_changed(
    config: Callable[..., PretrainConfig],
    stop_after: Callable[[int], None],
    state: State,
    remedies: list[dict[str, Any]],
    words: str,
) -> None:
    stop_after(1)
    job = config("run", health__on_collapse="stop")
    train(job)
    check(job)
    write_file(job.output, run.DIVERGED, {"epoch": 0, "step": 2, "clip_ids": [1]})
    run.Run(job.output).write_status(Status(state, 1, 0, "all alike"))
    with pytest.raises(ValueError, match=rf"run {words}"):
        check(job.replace({"checkpoint.keep": 3}))
    for remedy in remedies:
        check(config("run", **{"health__on_collapse": "stop", **remedy}))
    with pytest.raises(run.ConfigurationChangedError, match="seed: 0 → 1"):  # as for any other run
        train(job.replace({"seed": 1}))
    Path(job.output, run.DIVERGED).unlink()
    if state == "diverged":
        check(job)


def test_a_dry_run_shows_who_works_on_the_run_and_other_settings(
    config: Callable[..., PretrainConfig], stop_after: Callable[[int], None]
) -> None:
    stop_after(1)
    train(config("run"))
    console = Console(file=StringIO(), width=200)
    with lease.Lease(config("run").output, on_loss=lambda: None):
        console.print(describe(check(config("run", seed=1))))
    assert f"process {os.getpid()} on" in console.file.getvalue()
    assert "seed: 0 → 1" in console.file.getvalue()


@pytest.mark.parametrize("job", [launch.label, launch.run])
def test_a_run_that_is_taken_over_while_its_clips_are_labelled_ends(
    job: Callable[[launch.TrainingPlan], object],
    config: Callable[..., PretrainConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Held(lease.Lease):
        def __init__(self, folder: str, on_loss: Callable[[], None], guarded: bool = False) -> None:
            super().__init__(folder, on_loss, guarded)
            losses.append(on_loss)

    losses: list[Callable[[], None]] = []
    monkeypatch.setattr(launch, "Lease", Held)
    monkeypatch.setattr(Pretraining, "make_labels", lambda *arguments: losses[0]())
    monkeypatch.setattr(InProcess, "start", None)
    plan = check(config("run"))
    with pytest.raises(lease.InUseError, match=r"another process has taken .*run over"):
        job(plan)


def test_a_training_on_several_nodes_says_that_its_figures_end_with_one_of_them(
    config: Callable[..., PretrainConfig],
    tracking_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(InProcess, "several_nodes", lambda self: "2 nodes")
    job = config("run", epochs=1, tracking__uri=tracking_uri)
    train(job, in_sweep=True)
    assert "the cluster has 2 nodes" not in caplog.text
    train(job.replace(output=f"{job.output} 2"))
    assert caplog.text.count("the cluster has 2 nodes: set tracking.uri to an MLflow server") == 1


def test_a_warm_up_that_takes_the_whole_run_is_named(
    config: Callable[..., PretrainConfig], caplog: pytest.LogCaptureFixture
) -> None:
    check(config("run", epochs=1))  # it warms up for half an epoch
    assert "warmup_epochs" not in caplog.text
    check(config("run", epochs=1, optimizer__warmup_epochs=1))
    assert "optimizer.warmup_epochs=1 takes all of epochs=1: the learning rate only rises" in caplog.text


def test_a_finished_run_whose_export_is_of_another_version_is_refused(config: Callable[..., PretrainConfig]) -> None:
    job = config("run", epochs=1)
    train(job)
    description = Path(job.output, "encoder", "encoder.json")
    description.write_text(description.read_text().replace('"format_version": 1', '"format_version": 99'))
    with pytest.raises(ValueError, match=r"encoder\.json has format_version 99"):
        train(job)
