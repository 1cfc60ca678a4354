"""Whole runs in this process: exact resume, labels before gradients, warm starts, refusals, damage, divergence."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import safetensors.torch
import torch
from rich.console import Console
from support.processes import wait_for
from support.runs import BeginningError, assert_equal_runs, history, initial_weights, tiny, train, weights
from support.sources import write_source

from unfused_ray import cluster, lease, storage
from unfused_ray.clustering.assignment import read_assignment
from unfused_ray.config import PretrainConfig
from unfused_ray.methods.decar import DecarV2
from unfused_ray.methods.method import BlockOutput
from unfused_ray.models.export import read_description
from unfused_ray.runs import run
from unfused_ray.runs.files import read_file
from unfused_ray.training.coordinator import Coordinator, RunProgress
from unfused_ray.training.driver import monitor
from unfused_ray.training.driver.launch import check, describe
from unfused_ray.training.worker import loop, reporter
from unfused_ray.training.worker.learner import Learner

STEPS = 3  # an epoch: 100 clips, 32 a global batch

SETTINGS: dict[str, dict[str, Any]] = {
    "bank": {},
    "full pass": {"method__labels_from": "full_pass"},
    "mean of views": {"method__bank_embedding": "mean_of_views"},
    "average": {"ema_decay": 0.9},
    "two heads, sgd": {"method__num_clusters": (8, 5), "optimizer__name": "sgd", "optimizer__lr": 0.05},
}


pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    write_source(folder, [[40, 30], [30]])
    return folder


@pytest.fixture
def config(source: Path, tmp_path: Path, tracking_uri: str) -> Callable[..., PretrainConfig]:
    """Configuration of a run in the folder ``name``, with some fields changed."""
    return lambda name, **fields: tiny(source, tmp_path / name, tracking_uri, **fields)


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory, tracking_uri: str) -> Callable[[str], Path]:
    """Folder of a run with some settings that nothing interrupted."""
    folder = tmp_path_factory.mktemp("undisturbed")

    def run_of(settings: str) -> Path:
        output = folder / settings
        if not output.exists():
            assert train(tiny(source, output, tracking_uri, **SETTINGS[settings])).state == "finished"
        return output

    return run_of


@pytest.mark.parametrize(
    ("settings", "steps"),
    [("bank", steps) for steps in range(2 * STEPS)]
    + [(settings, steps) for settings in list(SETTINGS)[1:] for steps in (2, STEPS, STEPS + 1)],
)
def test_a_run_that_was_stopped_anywhere_ends_as_if_it_had_not_been(
    settings: str,
    steps: int,
    config: Callable[..., PretrainConfig],
    undisturbed: Callable[[str], Path],
    stop_after: Callable[[int], None],
) -> None:
    job = config("run", **SETTINGS[settings])
    stop_after(steps)
    status = train(job)
    assert (status.state, STEPS * status.epoch + status.step) == ("stopped", steps)
    stop_after(-1)
    assert train(job).state == "finished"
    assert_equal_runs(Path(job.output), undisturbed(settings))


def test_a_run_that_is_stopped_at_every_step_ends_as_if_it_had_not_been(
    config: Callable[..., PretrainConfig], undisturbed: Callable[[str], Path], stop_after: Callable[[int], None]
) -> None:
    job = config("run")
    for steps in range(1, 2 * STEPS):
        stop_after(steps)
        assert train(job).state == "stopped"
    assert train(job).state == "finished"
    assert_equal_runs(Path(job.output), undisturbed("bank"))


def test_a_stop_after_the_last_step_finishes_the_run(
    config: Callable[..., PretrainConfig], undisturbed: Callable[[str], Path], stop_after: Callable[[int], None]
) -> None:
    job = config("run")
    stop_after(2 * STEPS)
    assert train(job).state == "finished"
    assert_equal_runs(Path(job.output), undisturbed("bank"))


def test_a_stop_is_heard_although_epochs_are_shorter_than_the_time_between_reports(
    config: Callable[..., PretrainConfig], stop_after: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(STEPS)
    monkeypatch.setattr(reporter, "REPORT_SECONDS", 3600.0)
    status = train(config("run"))
    assert (status.state, status.epoch, status.step) == ("stopped", 1, 1)


def test_a_finished_run_stays_as_it_is_and_can_be_given_more_epochs(
    config: Callable[..., PretrainConfig], undisturbed: Callable[[str], Path]
) -> None:
    job = config("run")
    train(job)
    assert train(job).state == "finished"
    assert_equal_runs(Path(job.output), undisturbed("bank"))
    assert train(config("run", epochs=3)).state == "finished"
    assert [entry["epoch"] for entry in history(Path(job.output))] == [0, 1, 2]


def test_an_encoder_older_than_the_last_checkpoint_is_exported_again(
    config: Callable[..., PretrainConfig],
    undisturbed: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Killed after the last checkpoint of two further epochs, before their encoder was written."""
    shutil.copytree(undisturbed("bank"), tmp_path / "run")
    job = config("run", epochs=3)
    encoder = Path(job.output, "encoder", "encoder.safetensors")
    before = encoder.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_encoder", end_here)
        with pytest.raises(BeginningError):
            train(job)
    assert encoder.read_bytes() == before
    assert train(job).state == "finished"
    exported = safetensors.torch.load_file(encoder)
    trained = weights(Path(job.output))
    assert all(np.array_equal(value.numpy(), trained[f"model/encoder.{name}"]) for name, value in exported.items())


def end_here(*arguments: object) -> None:
    raise BeginningError


def test_checkpoints_by_time_change_nothing(
    config: Callable[..., PretrainConfig], undisturbed: Callable[[str], Path]
) -> None:
    job = config("run", checkpoint__every_minutes=1e-9, checkpoint__keep=100)
    train(job)
    folders = sorted(path.name for path in Path(job.output, "checkpoints").iterdir())
    assert folders == [f"e{epoch:04d}-s{step:06d}" for epoch, step in [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]]
    assert_equal_runs(Path(job.output), undisturbed("bank"))


def test_old_checkpoints_and_assignments_are_deleted(config: Callable[..., PretrainConfig]) -> None:
    job = config("run", epochs=6, checkpoint__keep=2, checkpoint__keep_assignments=3)
    train(job)
    assert sorted(path.name[:5] for path in Path(job.output, "checkpoints").iterdir()) == ["e0005", "e0006"]
    kept = sorted(path.name for path in Path(job.output, "assignments").iterdir())
    assert kept == ["epoch-0003", "epoch-0004", "epoch-0005"]


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_clip_has_a_label_before_the_first_gradient(
    settings: str, config: Callable[..., PretrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = config("run", epochs=1, **SETTINGS[settings])
    forward, labelled = DecarV2.forward, []

    def watched(method: DecarV2, views: torch.Tensor, weights: torch.Tensor, labels: torch.Tensor) -> object:
        if not labelled:
            assignment = read_assignment(f"{job.output}/assignments/epoch-0000")
            labelled.extend(map(len, assignment.labels))
            for head, num_clusters in zip(assignment.labels, job.method.num_clusters, strict=True):
                assert set(head) <= set(range(num_clusters))
            for prototypes, head in zip(assignment.prototypes, method._prototypes_KD, strict=True):
                assert np.array_equal(prototypes, head.numpy())
        return forward(method, views, weights, labels)

    monkeypatch.setattr(DecarV2, "forward", watched)
    train(job)
    assert labelled == [100] * len(job.method.num_clusters)


@pytest.fixture(scope="module")
def other_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other")
    write_source(folder, [[70]], lengths=(7_000,))
    return folder


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


def test_a_fork_of_nothing_is_refused_before_anything_is_written(
    config: Callable[..., PretrainConfig], tmp_path: Path
) -> None:
    job = config("run", fork=str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"fork=.*nowhere"):
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


def test_a_resume_hashes_every_file_of_its_checkpoint_once(
    config: Callable[..., PretrainConfig], stop_after: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = config("run")
    stop_after(STEPS + 1)
    train(job)
    stop_after(-1)
    hashed: Counter[str] = Counter()
    sha256 = storage.sha256_file

    def counted(uri: str) -> str:
        hashed[uri.partition("/checkpoints/")[2]] += 1
        return sha256(uri)

    monkeypatch.setattr(storage, "sha256_file", counted)
    assert train(job).state == "finished"
    of_checkpoint = {name: count for name, count in hashed.items() if name.startswith("e0001-s000001/")}
    twice = {name.rpartition("/")[2] for name, count in of_checkpoint.items() if count == 2}
    assert set(of_checkpoint.values()) == {1, 2}
    assert twice == {"head-0.parquet", "prototypes.safetensors"}  # an assignment verifies what it is read from
    names = {name.rpartition("/")[2] for name in of_checkpoint} - twice
    assert names == {
        *("details.json", "model.safetensors", "optimizer.safetensors"),
        *("bank.json", "shard-00000.safetensors", "assignment.json"),
    }


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_again(
    config: Callable[..., PretrainConfig], undisturbed: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copytree(undisturbed("bank"), tmp_path / "run")
    job = config("run", epochs=3)
    folders = sorted(Path(job.output, "checkpoints").iterdir())
    for folder in folders:
        (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="no checkpoint of the run can be used"):
        train(job)
    assert sorted(Path(job.output, "checkpoints").iterdir()) == folders


def test_more_clusters_than_clips_are_refused(config: Callable[..., PretrainConfig]) -> None:
    with pytest.raises(ValueError, match=r"method\.num_clusters=101 must not exceed the number of clips, 100"):
        check(config("run", method__num_clusters=(101,)))


def test_a_damaged_shard_is_counted(config: Callable[..., PretrainConfig], tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    write_source(folder, [[66], [30]])  # three global batches: every clip is in every epoch
    shard = folder / "00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-20] + bytes(20))
    job = config("run", data=(str(folder),))
    status = train(job)
    assert status.state == "finished"
    assert "60 times" in status.message
    assert [entry["damaged_clips"] for entry in history(Path(job.output))] == [30, 30]
    saved = run.Run(job.output).status()
    assert saved is not None
    assert saved.message == status.message
    assert np.isfinite([entry["loss"] for entry in history(Path(job.output))]).all()


def test_a_run_that_stops_after_an_epoch_exports_it_and_goes_on_as_if_it_had_not(
    config: Callable[..., PretrainConfig], undisturbed: Callable[[str], Path]
) -> None:
    first = config("run", stop_after=1)
    for _ in range(2):  # the second has nothing to do
        status = train(first)
        assert (status.state, status.epoch, status.step) == ("stopped", 1, 0)
        assert read_description(first.output)["extra"]["epochs"] == 1
    assert train(config("run")).state == "finished"
    assert_equal_runs(Path(first.output), undisturbed("bank"))


def test_a_run_does_not_stop_before_where_it_stands(
    config: Callable[..., PretrainConfig], stop_after: Callable[[int], None]
) -> None:
    stop_after(STEPS + 1)
    assert train(config("run")).state == "stopped"
    with pytest.raises(ValueError, match=r"stop_after=1 lies before where .*run stands, epoch 1 step [12]: give"):
        train(config("run", stop_after=1))


def test_a_compiled_run_learns_the_same(
    config: Callable[..., PretrainConfig], undisturbed: Callable[[str], Path]
) -> None:
    job = config("run", runtime__compile_backend="aot_eager")  # needs no compiler
    assert train(job).state == "finished"
    compiled, eager = weights(Path(job.output)), weights(undisturbed("bank"))
    assert compiled.keys() == eager.keys()
    losses = [[entry["loss"] for entry in history(run)] for run in (Path(job.output), undisturbed("bank"))]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_a_backend_that_torch_does_not_have_is_refused(config: Callable[..., PretrainConfig]) -> None:
    with pytest.raises(ValueError, match=r"runtime\.compile_backend=inductr is none of .*inductor"):
        check(config("run", runtime__compile_backend="inductr"))


@pytest.mark.parametrize("step", [0, STEPS - 1])  # the last one is followed by a checkpoint
def test_a_gradient_that_is_not_finite_ends_the_run_and_leaves_the_checkpoint_before_it(
    config: Callable[..., PretrainConfig], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    job = config("run")
    gradient, seen = Learner._block_gradient, []

    def poisoned(self: Learner, epoch: int, block: Any, labels: Sequence[np.ndarray]) -> BlockOutput:
        output = gradient(self, epoch, block, labels)
        if epoch == 1 and block.index // 4 == step:
            seen.extend(block.clip_ids.tolist())
            self.method.encoder.fc1.weight.grad[0, 0] = torch.nan
        return output

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "_block_gradient", poisoned)
        status = train(job)
    assert (status.state, status.epoch, status.step) == ("diverged", 1, step + 1)
    assert str(sorted(seen)) in status.message
    batch = read_file(job.output, run.DIVERGED)
    assert batch == {"epoch": 1, "step": step, "clip_ids": sorted(seen)}
    saved = run.Run(job.output).status()
    assert saved is not None
    assert saved.state == "diverged"
    assert [path.name for path in Path(job.output, "checkpoints").iterdir()] == ["e0001-s000000"]
    assert all(np.isfinite(value).all() for value in weights(Path(job.output)).values())


def test_signs_of_a_collapse_are_said_and_kept_and_end_the_run_where_they_are_to(
    config: Callable[..., PretrainConfig], caplog: pytest.LogCaptureFixture
) -> None:
    limits = {"health__max_cluster_share": 1e-3, "health__min_effective_rank": 1e3}
    job = config("run", **limits, health__on_collapse="stop")
    status = train(job)
    assert (status.state, status.epoch, status.step) == ("collapsed", 1, 0)
    signs = r"effective_rank \d\.\d\d < 1000, largest_share 0\.\d{3} > 0\.001"
    assert re.fullmatch(f"signs of a collapse after epoch 0: {signs}", status.message)
    assert "signs of a collapse" not in caplog.text  # its end says it
    assert [entry["collapse_signs"] for entry in history(Path(job.output))] == [2.0]

    going_on = train(config("run", **limits))  # the limits are none of what must stay
    message = "signs of a collapse after 2 of 2 epochs, first after epoch 0"
    assert (going_on.state, going_on.message) == ("finished", message)
    assert run.Run(job.output).status() == replace(going_on, updated=ANY)
    assert [entry["collapse_signs"] for entry in history(Path(job.output))] == [2.0, 2.0]
    assert "signs of a collapse after epoch 1" in caplog.text and "; going on" in caplog.text


def test_a_run_that_another_process_has_taken_over_ends_without_writing_to_it(
    config: Callable[..., PretrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = config("run", checkpoint__every_minutes=1e-9)
    monkeypatch.setattr(reporter, "REPORT_SECONDS", 0.0)
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.04)
    monkeypatch.setattr(monitor, "POLL_SECONDS", 0.02)
    report, seen = Coordinator.report, {}
    threads = set(threading.enumerate())

    def reporting(self: Coordinator, progress: RunProgress, metrics: Mapping[str, float] | None = None) -> str:
        if progress.step == STEPS + 1:  # another machine comes, and this run waits until it has heard of it
            leased = Path(job.output, "lease.json")
            while not self._abandoned:
                leased.write_text(json.dumps({**json.loads(leased.read_text()), "token": "another's"}))
                threading.Event().wait(0.01)
            seen.update(files(Path(job.output)))
        return report(self, progress, metrics)

    monkeypatch.setattr(Coordinator, "report", reporting)
    with pytest.raises(lease.InUseError, match="another process has taken"):
        train(job)
    assert files(Path(job.output)) == seen
    assert json.loads(Path(job.output, "lease.json").read_text())["token"] == "another's"
    wait_for(lambda: not [t for t in threading.enumerate() if t.name == "tracker" and t not in threads])


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but the lease."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lease.json"}


def test_a_run_that_fails_says_where_and_why(
    config: Callable[..., PretrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = config("run")
    gradient = Learner._block_gradient

    def failing(self: Learner, epoch: int, block: Any, labels: Sequence[np.ndarray]) -> BlockOutput:
        if epoch == 1 and block.index >= (STEPS - 1) * 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return gradient(self, epoch, block, labels)

    monkeypatch.setattr(Learner, "_block_gradient", failing)
    with pytest.raises(RuntimeError, match=r"lower batch\.block"):
        train(job)
    saved = run.Run(job.output).status()
    assert saved is not None
    assert (saved.state, saved.epoch, saved.step) == ("failed", 1, STEPS - 1)
    assert "out of memory" in saved.message


def attempts(failures: list[tuple[int, int]]) -> str:
    """What the next group of workers is told after groups that began and failed at these steps."""
    coordinator = Coordinator(None)
    for first, last in failures:
        assert coordinator.begin_attempt(first) == ""
        coordinator.report(RunProgress("training", max(first, last - 2)))
        coordinator.failed_at(last)
        coordinator.note_failure("worker 1 failed (out of memory)")
    answer = coordinator.begin_attempt(failures[-1][0])
    coordinator.close("FAILED")
    return answer


def test_groups_that_fail_three_times_at_one_place_are_given_up() -> None:
    assert attempts([(0, 9), (4, 7), (4, 7), (4, 7)]) == (
        "the workers have failed 3 times at step 7: worker 1 failed (out of memory)"
    )
    assert attempts([(4, 7), (4, 5), (4, 6)]) != ""  # the last report is a moment old


@pytest.mark.parametrize(
    "failures",
    [[(4, 7), (4, 7)], [(4, 20), (4, 60), (4, 35)], [(3, 7), (4, 7), (5, 7)]],
    ids=["twice", "anywhere", "after newer checkpoints"],
)
def test_groups_that_are_lost_on_their_way_begin_again(failures: list[tuple[int, int]]) -> None:
    assert attempts(failures) == ""


def test_other_threads_are_named(config: Callable[..., PretrainConfig], stop_after: Callable[[int], None]) -> None:
    stop_after(1)
    train(config("run"))
    notes: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Coordinator, "note", lambda self, message: notes.append(message))
        stop_after(2)
        train(config("run", runtime__threads=0))  # the checkpoint's, though this machine has more cores
        assert not notes
        stop_after(4)
        train(config("run", runtime__threads=2))
    assert "resuming with 2 threads a worker, the checkpoint was written with 1" in notes[0]


@pytest.mark.usefixtures("ray_session")  # is asked what its autoscaler may add
def test_paths_of_one_machine_are_refused_on_several_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"data": ("s3://bucket/data",), "output": ("/runs/a",)}
    for alive, refused in (([True], False), ([True, False], False), ([True, True], True)):
        monkeypatch.setattr(cluster.ray, "nodes", lambda alive=alive: [{"Alive": value} for value in alive])
        with pytest.raises(ValueError, match="output=/runs/a") if refused else nullcontext():
            cluster.refuse_local_paths(fields)


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


def test_a_long_pass_that_embeds_clips_is_drawn_by_its_share() -> None:
    drawn = monitor.drawn_bar(RunProgress("embedding every clip", figures={"share": 0.25}))
    assert drawn == monitor.DrawnBar("embedding every clip", 25, 100, "%")
    assert monitor.drawn_bar(RunProgress("clustering")) is None


def test_a_relative_sqlite_file_is_refused(config: Callable[..., PretrainConfig]) -> None:
    job = config("run", tracking__uri="sqlite:///mlflow.db")
    with pytest.raises(ValueError, match=r"tracking\.uri=sqlite:///mlflow\.db is relative"):
        train(job)
    assert not Path(job.output).exists()
