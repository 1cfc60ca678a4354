"""Forecasts of a run's time from measured stages, and dry runs that measure the stages."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from rich.console import Console
from support.runs import tiny, tiny_student, train
from support.terminal import Ended

from unfused_ray.config import PretrainConfig, TrainingConfig
from unfused_ray.data.parts.executor import InThisProcess
from unfused_ray.data.stream.read import Block
from unfused_ray.methods.method import BlockOutput
from unfused_ray.training.driver import dry_run
from unfused_ray.training.driver.dry_run import Measurement
from unfused_ray.training.driver.forecast import Forecast
from unfused_ray.training.driver.launch import check
from unfused_ray.training.runtimes import ray_train
from unfused_ray.training.runtimes.runtime import Resources
from unfused_ray.training.worker.learner import Learner

seconds = st.floats(1e-4, 1e3)
forecasts = st.builds(
    Forecast,
    decode=seconds,
    train=seconds,
    embed=seconds,
    cluster=st.one_of(st.just(0.0), seconds),
    epochs=st.integers(1, 100),
    train_blocks=st.integers(1, 10**6),
    embed_blocks=st.integers(1, 10**6),
    embed_passes=st.integers(0, 100),
    workers=st.integers(1, 64),
    busy_cpus=st.floats(0.5, 64),
    decoders=st.floats(1, 256),
    cpus=st.floats(1, 512),
)


def test_a_forecast_worked_by_hand():
    # 2 workers with a CPU each on 4 CPUs, 2 of them for decoding; an epoch of 100 blocks.
    run = Forecast(
        **{"decode": 0.5, "train": 4.0, "embed": 1.0, "cluster": 10.0},
        **{"epochs": 3, "train_blocks": 100, "embed_blocks": 104, "embed_passes": 1},
        **{"workers": 2, "busy_cpus": 1.0, "decoders": 2.0, "cpus": 4.0},
    )
    assert run.limit == "training"
    assert run.decode_cpus == 0.5  # embedding a block takes as long as decoding two
    assert (run.train_seconds, run.embed_seconds) == (200.0, 52.0)
    assert run.hours == (3 * (200 + 10) + 52) / 3600
    slow_data = replace(run, decode=9.0)
    assert (slow_data.limit, slow_data.train_seconds) == ("decoding", 450.0)
    # All four CPUs are shared: each worker's two train a block in 4 s, and decoding a block takes 0.5 s.
    assert replace(run, busy_cpus=2.0).train_seconds == (2 * 400 + 50) / 4
    assert replace(run, cluster=500.0).limit == "clustering"


@given(forecasts, st.integers(2, 5))
def test_hours_are_proportional_to_epochs(run: Forecast, times: int):
    longer = replace(run, epochs=times * run.epochs, embed_passes=times * run.embed_passes)
    assert longer.hours == pytest.approx(times * run.hours)


@given(forecasts, st.sampled_from(["workers", "decoders", "cpus"]), st.integers(2, 5))
def test_more_workers_or_cpus_are_never_slower(run: Forecast, name: str, times: int):
    more = replace(run, **{name: times * getattr(run, name)})
    assert more.hours <= run.hours * (1 + 1e-9)


@given(forecasts, st.sampled_from(["decode", "train", "embed", "cluster"]), st.floats(1, 100))
def test_a_slower_stage_is_never_faster(run: Forecast, stage: str, times: float):
    slower = replace(run, **{stage: times * getattr(run, stage)})
    assert slower.hours >= run.hours * (1 - 1e-9)


@given(forecasts)
def test_with_the_cpus_it_names_no_pass_waits_for_data(run: Forecast):
    needed = run.workers * run.decode_cpus
    enough = replace(run, decoders=needed, cpus=run.workers * run.busy_cpus + needed)
    assert enough.train_seconds == pytest.approx(run.train_blocks * run.train / run.workers)
    if run.embed_passes:
        assert enough.embed_seconds == pytest.approx(run.embed_blocks * run.embed / run.workers)


@given(forecasts)
def test_the_limit_is_a_stage_that_would_shorten_an_epoch(run: Forecast):
    own_cpus = replace(run, cpus=run.workers * run.busy_cpus + run.decoders, embed_passes=0)
    training, decoding = run.train / run.workers, run.decode / run.decoders
    assume(training != pytest.approx(decoding))
    stage = {"training": "train", "decoding": "decode", "clustering": "cluster"}[own_cpus.limit]
    assert replace(own_cpus, **{stage: getattr(run, stage) / 2}).hours < own_cpus.hours


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure every stage only as often as necessary."""
    for name in ("DECODE_SECONDS", "STEP_SECONDS", "OTHER_SECONDS"):
        monkeypatch.setattr(dry_run, name, 0.0)


@pytest.fixture
def config(source: Path, tmp_path: Path, tracking_uri: str) -> Callable[..., PretrainConfig]:
    """Return a function: configuration of a run with changed fields."""
    return lambda **fields: tiny(source, tmp_path / "run", tracking_uri, **fields)


def described(job: TrainingConfig) -> str:
    console = Console(file=StringIO(), width=200)
    console.print(dry_run.describe(job, check(job).index))
    return console.file.getvalue()


@pytest.mark.usefixtures("ray_session")
def test_a_dry_run_of_the_tiny_recipe_prints_a_forecast_and_writes_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: Callable[..., Ended]
):
    monkeypatch.setenv("UNFUSED_RAY_HOME", str(tmp_path / "home"))
    arguments = ["--data", str(source), "--output", str(tmp_path / "run"), "--runtime.threads", "1", "--dry-run"]
    ended = command_line("pretrain", "tiny", *arguments)
    assert ended.code == 0, ended.err
    output = ended.out
    for heading in ("decoding", "training", "embedding every clip", "clustering", "limited by", "CPUs for decoding"):
        assert heading in output
    assert "a step of 32 clips" in output
    whole = r"hours \(0:\d\d:\d\d\) with 1 worker: 2 epochs × \(.* to train \+ .* to cluster\) \+ 1 × .* to embed"
    assert re.search(whole, output)
    assert not list(tmp_path.iterdir())


def test_a_distillation_is_measured_before_its_labels_are_made(source: Path, tmp_path: Path, tracking_uri: str):
    for labels in ({"origin": "random", "num_clusters": (4, 3)}, {"origin": "true"}):
        fields = {f"labels__{name}": value for name, value in labels.items()}
        output = described(tiny_student(source, tmp_path / "run", tracking_uri, **fields))
        assert "nothing is clustered" in output
        assert "embed" not in output
    assert not list(tmp_path.iterdir())


def test_where_labels_are_of_a_full_pass_every_epoch_embeds_every_clip(config: Callable[..., PretrainConfig]):
    assert "+ 2 × " in described(config(method__labels_from="full_pass"))


@pytest.mark.usefixtures("ray_session")
def test_the_step_tried_is_a_workers_share_of_it(
    config: Callable[..., PretrainConfig], monkeypatch: pytest.MonkeyPatch
):
    gradient, seen = Learner._block_gradient, []

    def counted(self: Learner, epoch: int, block: Block, labels: Sequence[np.ndarray]) -> BlockOutput:
        seen.append(block.index)
        return gradient(self, epoch, block, labels)

    monkeypatch.setattr(Learner, "_block_gradient", counted)
    job = config(runtime__kind="workers", runtime__num_workers=2)
    run = Measurement(job, check(job).index).forecast()
    assert seen == [0, 1] * 3  # a warm-up and two measurements; two of a batch's four blocks
    assert (run.train_blocks, run.embed_blocks) == (12, 16)
    assert (run.workers, run.cpus, run.decoders) == (2, 2.0, 1.0)


def test_the_size_of_a_checkpoint_is_that_of_its_files(config: Callable[..., PretrainConfig]):
    job = config(ema_decay=0.5, epochs=1, encoder__width=256, method__num_clusters=(8, 4))
    tried = Measurement(job, check(job).index)
    tried.forecast()
    assert train(job).state == "finished"
    folder = max(Path(job.output, "checkpoints").iterdir())
    written = sum(file.stat().st_size for file in folder.rglob("*.*"))
    assert tried.checkpoint_bytes() == pytest.approx(written, rel=0.05)


def test_what_workers_with_gpus_would_do_is_measured_in_a_task_with_one(
    config: Callable[..., PretrainConfig], monkeypatch: pytest.MonkeyPatch
):
    """A task in this process replaces Ray's, and its CPU the GPU."""
    reserved = []

    class Tasks(InThisProcess):
        def __init__(self, gpus_per_task: float) -> None:
            super().__init__()
            reserved.append(gpus_per_task)

    monkeypatch.setattr(ray_train, "RayTasks", Tasks)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(ray_train.RayTrain, "resources", lambda self, config: Resources(1, 1, 2.0, 1.0))
    output = described(config(runtime__kind="workers", runtime__gpus_per_worker=0.5))
    assert reserved == [0.5]
    assert "hours" in output
