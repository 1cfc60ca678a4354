"""Whole runs in this process: exact resume, labels before gradients, warm starts, refusals, damage, divergence."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from runs import assert_equal_runs, history, tiny, weights
from sources import write_source

from unfused_ray.clustering.assignment import read_assignment
from unfused_ray.config import PretrainConfig
from unfused_ray.methods.decar import DecarV2
from unfused_ray.training import loop, run
from unfused_ray.training.coordinator import Coordinator, Progress
from unfused_ray.training.pretrain import check, pretrain

STEPS = 3  # an epoch: 100 clips, 32 a global batch

SETTINGS: dict[str, dict[str, Any]] = {
    "bank": {},
    "full pass": {"method__labels_from": "full_pass"},
    "mean of views": {"method__bank_embedding": "mean_of_views"},
    "two heads, sgd": {"method__num_clusters": (8, 5), "optimizer__name": "sgd", "optimizer__lr": 0.05},
}


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    """Nobody else comes for these runs: their leases need not settle."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "SETTLE_SECONDS", 0.0)
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    write_source(folder, [[40, 30], [30]])
    return folder


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One SQLite file for all: MLflow takes seconds to make its tables."""
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"


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
            assert pretrain(tiny(source, output, tracking_uri, **SETTINGS[settings])).state == "finished"
        return output

    return run_of


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Ask the run to stop once it has done so many steps; 0 is while it embeds every clip; no more for -1."""
    monkeypatch.setattr(loop, "REPORT_SECONDS", 0.0)
    report = Coordinator.report

    def arm(steps: int) -> None:
        def reporting(self: Coordinator, progress: Progress, metrics: Mapping[str, float] | None = None) -> str:
            if progress.step == steps:
                self.request_stop("the test")
            return report(self, progress, metrics)

        monkeypatch.setattr(Coordinator, "report", reporting)

    return arm


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
    status = pretrain(job)
    assert (status.state, STEPS * status.epoch + status.step) == ("stopped", steps)
    stop_after(-1)
    assert pretrain(job).state == "finished"
    assert_equal_runs(Path(job.output), undisturbed(settings))


def test_a_run_that_is_stopped_at_every_step_ends_as_if_it_had_not_been(
    config: Callable[..., PretrainConfig], undisturbed: Callable[[str], Path], stop_after: Callable[[int], None]
) -> None:
    job = config("run")
    for steps in range(1, 2 * STEPS):
        stop_after(steps)
        assert pretrain(job).state == "stopped"
    assert pretrain(job).state == "finished"
    assert_equal_runs(Path(job.output), undisturbed("bank"))


def test_a_stop_after_the_last_step_finishes_the_run(
    config: Callable[..., PretrainConfig], undisturbed: Callable[[str], Path], stop_after: Callable[[int], None]
) -> None:
    job = config("run")
    stop_after(2 * STEPS)
    assert pretrain(job).state == "finished"
    assert_equal_runs(Path(job.output), undisturbed("bank"))


def test_a_stop_is_heard_although_epochs_are_shorter_than_the_time_between_reports(
    config: Callable[..., PretrainConfig], stop_after: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(STEPS)
    monkeypatch.setattr(loop, "REPORT_SECONDS", 3600.0)
    status = pretrain(config("run"))
    assert (status.state, status.epoch, status.step) == ("stopped", 1, 1)


def test_a_finished_run_stays_as_it_is_and_can_be_given_more_epochs(
    config: Callable[..., PretrainConfig], undisturbed: Callable[[str], Path]
) -> None:
    job = config("run")
    pretrain(job)
    assert pretrain(job).state == "finished"
    assert_equal_runs(Path(job.output), undisturbed("bank"))
    assert pretrain(config("run", epochs=3)).state == "finished"
    assert [entry["epoch"] for entry in history(Path(job.output))] == [0, 1, 2]


def test_checkpoints_by_time_change_nothing(
    config: Callable[..., PretrainConfig], undisturbed: Callable[[str], Path]
) -> None:
    job = config("run", checkpoint__every_minutes=1e-9, checkpoint__keep=100)
    pretrain(job)
    folders = sorted(path.name for path in Path(job.output, "checkpoints").iterdir())
    assert folders == [f"e{epoch:04d}-s{step:06d}" for epoch, step in [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]]
    assert_equal_runs(Path(job.output), undisturbed("bank"))


def test_old_checkpoints_and_assignments_are_deleted(config: Callable[..., PretrainConfig]) -> None:
    job = config("run", epochs=6, checkpoint__keep=2, checkpoint__keep_assignments=3)
    pretrain(job)
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
    pretrain(job)
    assert labelled == [100] * len(job.method.num_clusters)


def initial_weights(monkeypatch: pytest.MonkeyPatch, job: PretrainConfig) -> dict[str, torch.Tensor]:
    """Weights with which a run begins; it is ended there."""

    def begin(self: loop.Loop) -> None:
        raise BeginningError({name: value.clone() for name, value in self.method.state_dict().items()})

    with monkeypatch.context() as patch:
        patch.setattr(loop.Loop, "run", begin)
        with pytest.raises(BeginningError) as beginning:
            pretrain(job)
    return beginning.value.args[0]


class BeginningError(Exception):
    """Carries the weights of a run that has not begun."""


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
    assert pretrain(job).state == "finished"
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
    assert pretrain(job).state == "finished"


def test_a_warm_start_from_nothing_is_refused_before_anything_is_written(
    config: Callable[..., PretrainConfig], tmp_path: Path
) -> None:
    job = config("run", init_from=str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"init_from=.*nowhere"):
        pretrain(job)
    assert not Path(job.output).exists()


def test_a_fork_goes_on_from_another_run_with_other_clusters(
    config: Callable[..., PretrainConfig], stop_after: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    trunk = config("trunk")
    stop_after(STEPS + 1)
    pretrain(trunk)
    stop_after(-1)
    branch = config("branch", fork=trunk.output, method__num_clusters=(5, 4))
    model = safetensors.torch.load_file(Path(trunk.output, "checkpoints/e0001-s000001/model.safetensors"))
    beginning = initial_weights(monkeypatch, branch)
    assert all(torch.equal(beginning[name], model[name]) for name in model)
    assert pretrain(branch).state == "finished"
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
    pretrain(trunk)
    branch = config("branch", fork=trunk.output, **fields)
    with pytest.raises(ValueError, match=setting):
        pretrain(branch)
    assert not Path(branch.output).exists()


def test_a_fork_of_nothing_is_refused_before_anything_is_written(
    config: Callable[..., PretrainConfig], tmp_path: Path
) -> None:
    job = config("run", fork=str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"fork=.*nowhere"):
        pretrain(job)
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
    pretrain(config("run"))
    before = weights(Path(config("run").output))
    with pytest.raises(run.ConfigurationChangedError, match=f"  {re.escape(name)}: "):
        pretrain(config("run", **fields))
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
    pretrain(config("run"))
    stop_after(-1)
    with pytest.raises(run.ConfigurationChangedError, match="data_checksums"):
        pretrain(config("run", data=(str(other_source),)))
    moved = tmp_path / "moved"
    moved.symlink_to(source)
    pretrain(config("run", data=(str(moved),)))
    assert_equal_runs(Path(config("run").output), undisturbed("bank"))


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_again(
    config: Callable[..., PretrainConfig], undisturbed: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copytree(undisturbed("bank"), tmp_path / "run")
    job = config("run", epochs=3)
    folders = sorted(Path(job.output, "checkpoints").iterdir())
    for folder in folders:
        (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="no checkpoint of the run can be used"):
        pretrain(job)
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
    status = pretrain(job)
    assert status.state == "finished"
    assert "60 times" in status.message
    assert [entry["damaged_clips"] for entry in history(Path(job.output))] == [30, 30]
    saved = run.Run(job.output).status()
    assert saved is not None
    assert saved.message == status.message
    assert np.isfinite([entry["loss"] for entry in history(Path(job.output))]).all()


def test_a_gradient_that_is_not_finite_ends_the_run_and_leaves_the_checkpoint_before_it(
    config: Callable[..., PretrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = config("run")
    forward, seen = loop.Loop._forward_backward, []

    def poisoned(self: loop.Loop, epoch: int, block: Any, labels: np.ndarray) -> None:
        forward(self, epoch, block, labels)
        if epoch == 1 and block.index >= (STEPS - 1) * 4:  # the last step before a checkpoint
            seen.extend(block.clip_ids.tolist())
            self.method.encoder.fc1.weight.grad[0, 0] = torch.nan

    with monkeypatch.context() as patch:
        patch.setattr(loop.Loop, "_forward_backward", poisoned)
        status = pretrain(job)
    assert (status.state, status.epoch, status.step) == ("diverged", 1, STEPS)
    assert str(sorted(seen)) in status.message
    saved = run.Run(job.output).status()
    assert saved is not None
    assert saved.state == "diverged"
    assert [path.name for path in Path(job.output, "checkpoints").iterdir()] == ["e0001-s000000"]
    assert all(np.isfinite(value).all() for value in weights(Path(job.output)).values())
