"""A stopped run ends as if it had not been stopped, and a resume reads one good checkpoint."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
from mlflow import MlflowClient
from support.runs import SETTINGS, STEPS, BeginningError, assert_equal_runs, history, tracked, train, weights

from unfused_ray import storage
from unfused_ray.config import PretrainConfig
from unfused_ray.models.export import read_description
from unfused_ray.runs.checkpoints import CheckpointStore
from unfused_ray.training.coordinator import Coordinator, RunProgress
from unfused_ray.training.worker import checkpointer, exporter, learner, reporter, state
from unfused_ray.training.worker.checkpointer import Checkpointer


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


def test_a_run_that_crashed_and_resumes_has_one_point_a_step_in_mlflow(
    config: Callable[..., PretrainConfig], tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporter, "REPORT_SECONDS", -1.0)  # every step is reported
    job, take = config("run", tracking__uri=tracking_uri), state.TrainingState.step
    steps = iter(range(2 * STEPS - 1))

    def crash(self: state.TrainingState, lr: float) -> None:
        if next(steps, None) is None:
            raise RuntimeError("a crash")
        take(self, lr)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="a crash"):
        patch.setattr(state.TrainingState, "step", crash)
        train(job)
    assert train(job).state == "finished"
    run_id = tracked(tracking_uri, job.output).info.run_id
    points = {
        name: [point.step for point in MlflowClient(tracking_uri).get_metric_history(run_id, name)]
        for name in ("loss", "epoch/loss", "cluster/inertia")
    }
    assert points["loss"] == list(range(1, 2 * STEPS + 1))
    assert points["epoch/loss"] == [STEPS, 2 * STEPS]
    assert points["cluster/inertia"] == [0, STEPS]


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
    """A run is killed after the last checkpoint of further epochs, before their encoder is written."""
    shutil.copytree(undisturbed("bank"), tmp_path / "run")
    job = config("run", epochs=3)
    encoder = Path(job.output, "encoder", "encoder.safetensors")
    before = encoder.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(exporter, "save_encoder", end_here)
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


def test_epochs_that_end_soon_after_a_checkpoint_write_none_but_the_last_and_where_the_run_stops(
    config: Callable[..., PretrainConfig], undisturbed: Callable[[str], Path], stop_after: Callable[[int], None]
) -> None:
    job = config("run", checkpoint__min_minutes=60.0, checkpoint__keep=100)
    assert train(job).state == "finished"
    assert [path.name for path in Path(job.output, "checkpoints").iterdir()] == ["e0002-s000000"]
    assert_equal_runs(Path(job.output), undisturbed("bank"))
    stopped = config("stopped", checkpoint__min_minutes=60.0, checkpoint__keep=100)
    stop_after(STEPS)  # asked for at the end of an epoch, noticed a step later
    assert train(stopped).state == "stopped"
    (folder,) = Path(stopped.output, "checkpoints").iterdir()
    assert folder.name in ("e0001-s000000", "e0001-s000001")
    stop_after(-1)
    assert train(stopped).state == "finished"
    assert_equal_runs(Path(stopped.output), undisturbed("bank"))


def test_a_stop_while_every_clip_is_embedded_keeps_the_epochs_that_wrote_no_checkpoint(
    config: Callable[..., PretrainConfig], undisturbed: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = config("run", checkpoint__min_minutes=60.0, **SETTINGS["full pass"])
    monkeypatch.setattr(reporter, "REPORT_SECONDS", 0.0)
    report = Coordinator.report

    def stopping(self: Coordinator, progress: RunProgress, metrics: Mapping[str, float] | None = None) -> str:
        if (progress.phase, progress.step) == ("embedding every clip", STEPS) and progress.figures["share"] > 0:
            self.request_stop("the test")
        return report(self, progress, metrics)

    with monkeypatch.context() as patch:
        patch.setattr(Coordinator, "report", stopping)
        status = train(job)
    assert (status.state, status.epoch, status.step) == ("stopped", 1, 0)
    assert [path.name for path in Path(job.output, "checkpoints").iterdir()] == ["e0001-s000000"]
    assert train(job).state == "finished"
    assert_equal_runs(Path(job.output), undisturbed("full pass"))


def test_a_checkpoint_that_is_due_with_an_epochs_last_step_is_written(config: Callable[..., PretrainConfig]) -> None:
    job = config("run", checkpoint__every_minutes=1e-9, checkpoint__min_minutes=60.0, checkpoint__keep=100)
    assert train(job).state == "finished"
    assert Path(job.output, "checkpoints", "e0001-s000000").is_dir()


@pytest.fixture
def written_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write checkpoints in a thread, as on a GPU."""
    build = checkpointer.Checkpointer.__init__

    def in_thread(self: Checkpointer, *arguments: Any) -> None:
        build(self, *arguments[:-1], True)

    monkeypatch.setattr(checkpointer.Checkpointer, "__init__", in_thread)


@pytest.mark.usefixtures("written_in_a_thread")
@pytest.mark.parametrize("steps", [STEPS, STEPS + 1])
def test_checkpoints_that_are_written_while_the_training_goes_on_hold_what_was_there_before(
    steps: int,
    config: Callable[..., PretrainConfig],
    undisturbed: Callable[[str], Path],
    stop_after: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each commit takes longer than the next step."""
    commit, threads = CheckpointStore.commit, set[str]()

    def slow(self: CheckpointStore, *arguments: Any, **named: Any) -> None:
        time.sleep(0.1)
        threads.add(threading.current_thread().name)
        commit(self, *arguments, **named)

    monkeypatch.setattr(CheckpointStore, "commit", slow)
    job = config("run", checkpoint__every_minutes=1e-9, **SETTINGS["average"])
    stop_after(steps)
    assert train(job).state == "stopped"
    stop_after(-1)
    assert train(job).state == "finished"
    assert_equal_runs(Path(job.output), undisturbed("average"))
    assert {name.rpartition("_")[0] for name in threads} == {"checkpoint"}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("checkpoint")]


@pytest.mark.usefixtures("written_in_a_thread")
def test_a_checkpoint_that_a_thread_cannot_write_ends_the_run(
    config: Callable[..., PretrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: CheckpointStore, *arguments: Any, **named: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(CheckpointStore, "commit", full)
    with pytest.raises(OSError, match="no space left"):
        train(config("run"))
    assert not (Path(config("run").output) / "encoder").exists()


def test_old_checkpoints_and_assignments_are_deleted(config: Callable[..., PretrainConfig]) -> None:
    job = config("run", epochs=6, checkpoint__keep=2, checkpoint__keep_assignments=3)
    train(job)
    assert sorted(path.name[:5] for path in Path(job.output, "checkpoints").iterdir()) == ["e0005", "e0006"]
    kept = sorted(path.name for path in Path(job.output, "assignments").iterdir())
    assert kept == ["epoch-0003", "epoch-0004", "epoch-0005"]


def test_a_run_that_stops_after_an_epoch_exports_it_and_goes_on_as_if_it_had_not(
    config: Callable[..., PretrainConfig], undisturbed: Callable[[str], Path]
) -> None:
    first = config("run", stop_after=1)
    for _ in range(2):  # the second time there is nothing to do
        status = train(first)
        assert (status.state, status.epoch, status.step) == ("stopped", 1, 0)
        assert read_description(first.output)["extra"]["epochs"] == 1
    assert train(config("run")).state == "finished"
    assert_equal_runs(Path(first.output), undisturbed("bank"))


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
    assert twice == {"head-0.parquet", "prototypes.safetensors"}  # reading an assignment verifies its files again
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


def test_other_threads_are_named(config: Callable[..., PretrainConfig], stop_after: Callable[[int], None]) -> None:
    stop_after(1)
    train(config("run"))
    notes: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Coordinator, "note", lambda self, message: notes.append(message))
        stop_after(2)
        train(config("run", runtime__threads=0))  # 0 takes the checkpoint's number
        assert not notes
        stop_after(4)
        train(config("run", runtime__threads=2))
    assert "resuming with 2 threads a worker, the checkpoint was written with 1" in notes[0]


def test_another_device_is_named(config: Callable[..., PretrainConfig], stop_after: Callable[[int], None]) -> None:
    notes: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Coordinator, "note", lambda self, message: notes.append(message))
        with pytest.MonkeyPatch.context() as elsewhere:
            elsewhere.setattr(learner, "describe_arithmetic", lambda *arguments: "bfloat16 on NVIDIA L4")
            for steps in (1, 2):
                stop_after(steps)
                train(config("run"))
        assert not notes
        stop_after(4)
        train(config("run"))
    (note,) = notes
    assert note.startswith("resuming in ")
    assert note.endswith(", the checkpoint was written in bfloat16 on NVIDIA L4: the result will differ")
