"""Ray Train: the first worker group uses the driver's resume point, a restarted one looks again; time-outs, GPUs."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import ActorDiedError, RayError
from ray.train.v2._internal.constants import ENABLE_PREEMPTION_WATCHER_ENV_VAR
from support.runs import tiny

from unfused_ray import cluster, storage
from unfused_ray.config import RuntimeConfig
from unfused_ray.data.parts.executor import IN_PROCESS, InThisProcess
from unfused_ray.data.shards.format import Statistics
from unfused_ray.runs.checkpoints import CheckpointStore, Position
from unfused_ray.runs.resume import find_fork_point, find_resume_point
from unfused_ray.runs.start_times import StartTimes
from unfused_ray.training.job import TrainingJob
from unfused_ray.training.runtimes import ray_train, remote_coordinator, worker_resources
from unfused_ray.training.runtimes.ray_train import RayTrain, _WorkerMain
from unfused_ray.training.runtimes.remote_coordinator import CoordinatorActor
from unfused_ray.training.runtimes.worker_group import is_lost_node


@pytest.fixture
def restarted(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Ray's context of an actor; a test sets whether the actor's process was restarted."""
    context = SimpleNamespace(was_current_actor_reconstructed=False)
    monkeypatch.setattr(remote_coordinator.ray, "get_runtime_context", lambda: context)
    return context


def test_only_the_first_worker_group_is_certainly_the_first(restarted: SimpleNamespace) -> None:
    coordinator = CoordinatorActor(None, 0)
    assert coordinator.is_first_attempt()
    coordinator.begin_attempt(0)
    assert not coordinator.is_first_attempt()
    restarted.was_current_actor_reconstructed = True
    assert not CoordinatorActor(None, 0).is_first_attempt()


def commit(run: Path, step: int) -> None:
    store = CheckpointStore(str(run))
    store.begin(Position(0, step))
    store.commit(Position(0, step), {}, {})


def test_only_a_group_that_is_started_anew_looks_for_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    commit(run, 1)
    job = TrainingJob(
        tiny(tmp_path, run, ""), str(run), MagicMock(), Statistics(), resume_point=find_resume_point(str(run))
    )
    first = _WorkerMain(job, MagicMock(is_first_attempt=lambda: True), None)
    later = _WorkerMain(job, MagicMock(is_first_attempt=lambda: False), None)
    commit(run, 2)
    with monkeypatch.context() as patch:
        patch.delattr(storage, "sha256_file")
        assert first._resume_point() is job.resume_point
    assert later._resume_point().position == Position(0, 2)


def test_a_fork_without_a_checkpoint_of_its_own_begins_again_where_it_began(tmp_path: Path) -> None:
    trunk, notes = tmp_path / "trunk", list[str]()
    commit(trunk, 3)
    config = tiny(tmp_path, tmp_path / "fork", "", fork=str(trunk))
    job = TrainingJob(config, config.output, MagicMock(), Statistics(), resume_point=find_fork_point(str(trunk)))
    later = _WorkerMain(job, MagicMock(is_first_attempt=lambda: False, note=notes.append), None)
    commit(trunk, 4)
    assert later._resume_point() is job.resume_point
    assert job.resume_point is not None and job.resume_point.position == Position(0, 0)
    for step in (5, 6):  # the trunk trains on and keeps two checkpoints
        commit(trunk, step)
        CheckpointStore(str(trunk)).prune(Position(0, step), keep=2)
    found = later._resume_point()
    assert (found.checkpoint.position, found.position, found.bank_uri) == (Position(0, 6), Position(0, 0), None)
    assert len(notes) == 1 and "is no longer there" in notes[0]


@pytest.mark.parametrize("error", [ValueError("no checkpoint of the run can be used"), FileNotFoundError("no fork")])
def test_a_later_group_is_refused_as_the_first_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def gone(run_uri: str) -> None:
        raise error

    monkeypatch.setattr(ray_train, "find_resume_point", gone)
    job = TrainingJob(tiny(tmp_path, tmp_path / "run", ""), "", MagicMock(), Statistics())
    coordinator = MagicMock(is_first_attempt=lambda: False)
    assert _WorkerMain(job, coordinator, None)._beginning() == [str(error), "", None]
    coordinator.begin_attempt.assert_not_called()
    monkeypatch.setattr(ray_train, "find_resume_point", lambda run_uri: None)
    coordinator.begin_attempt.return_value = ""
    refusal, group, resume_point = _WorkerMain(job, coordinator, None)._beginning()
    assert (refusal, resume_point, len(group)) == ("", None, 32)


@pytest.mark.parametrize(
    ("gpus", "is_one_machine", "seconds"),
    [(1.0, True, 30 * 60), (1.0, False, 30 * 60), (0.0, True, 12 * 3600), (0.0, False, 12 * 3600)],
)
def test_gpus_that_hang_are_given_up_within_half_an_hour(
    monkeypatch: pytest.MonkeyPatch, gpus: float, is_one_machine: bool, seconds: int
) -> None:
    given, failure = dict[str, Any](), ray_train.ControllerError(ray_train.GivenUpError("three times"))

    def trainer(*arguments: Any, **settings: Any) -> MagicMock:
        given.update(settings)
        return MagicMock(fit=MagicMock(side_effect=failure))

    monkeypatch.setattr(ray_train, "WorkerGroupTrainer", trainer)
    _without_cluster(monkeypatch, is_one_machine)
    job = MagicMock()
    job.config.runtime = RuntimeConfig(gpus_per_worker=gpus)
    status = ray_train._fit(job, MagicMock(), None)
    assert (status.state, status.message) == ("failed", "three times")
    assert given["torch_config"].timeout_s == seconds
    failure.controller_failure = RuntimeError("of Ray itself")
    with pytest.raises(ray_train.ControllerError):
        ray_train._fit(job, MagicMock(), None)


@pytest.mark.parametrize(("is_one_machine", "watches"), [(True, "0"), (False, None)])
def test_drained_nodes_are_watched_for_where_there_are_others(
    monkeypatch: pytest.MonkeyPatch, is_one_machine: bool, watches: str | None
) -> None:
    switch = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
    monkeypatch.delenv(switch, raising=False)
    found = list[str | None]()
    trainer = MagicMock()
    trainer.return_value.fit.side_effect = lambda: found.append(os.environ.get(switch)) or MagicMock()
    monkeypatch.setattr(ray_train, "WorkerGroupTrainer", trainer)
    _without_cluster(monkeypatch, is_one_machine)
    job = MagicMock()
    job.config.runtime = RuntimeConfig()
    ray_train._fit(job, MagicMock(), None)
    assert found == [watches]
    assert switch == ENABLE_PREEMPTION_WATCHER_ENV_VAR  # this version of Ray has that name


def _without_cluster(monkeypatch: pytest.MonkeyPatch, is_one_machine: bool) -> None:
    monkeypatch.setattr(ray_train, "make_dataset", MagicMock())
    monkeypatch.setattr(cluster, "is_one_machine", lambda: is_one_machine)
    monkeypatch.setattr(worker_resources, "worker_cpus", lambda runtime: 1.0)


def test_the_controller_hears_of_an_actor_that_a_worker_has_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = ActorDiedError(ActorDiedErrorContext(error_message="its node has died", actor_id=b"0" * 16))

    def train(self: _WorkerMain, collectives: Any) -> None:
        raise died

    monkeypatch.setattr(ray_train, "DistributedCollectives", MagicMock())
    monkeypatch.setattr(_WorkerMain, "_train", train)
    job = TrainingJob(tiny(tmp_path, tmp_path / "run", ""), "", MagicMock(), Statistics())
    with pytest.raises(RayError) as raised:
        _WorkerMain(job, MagicMock(), None)()
    sent = pickle.loads(pickle.dumps(raised.value))
    assert str(sent) == str(died)
    assert is_lost_node(sent)


def test_several_workers_on_one_gpu_are_refused_before_a_cluster_is_asked() -> None:
    with pytest.raises(ValueError, match=r"runtime\.gpus_per_worker=0\.3 and runtime\.num_workers=3 put several"):
        RayTrain().refuse_impossible(RuntimeConfig(num_workers=3, gpus_per_worker=0.3))


def test_clips_are_labelled_where_workers_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_train, "RayTasks", lambda gpus: f"tasks with {gpus:g} GPU")
    assert RayTrain().labelling(RuntimeConfig(gpus_per_worker=0.5)) == "tasks with 0.5 GPU"
    assert RayTrain().labelling(RuntimeConfig()) is IN_PROCESS


needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU")


@needs_no_gpu
def test_a_clusters_gpu_that_torch_cannot_use_is_refused_before_workers_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_train, "RayTasks", lambda gpus: InThisProcess())
    monkeypatch.setattr(worker_resources, "worker_cpus", lambda config: 1.0)
    monkeypatch.setattr(cluster, "session", nullcontext)
    monkeypatch.setattr(cluster, "refuse_local_paths", lambda fields: None)
    opened = RayTrain().session(RuntimeConfig(gpus_per_worker=1), {}, str(tmp_path), StartTimes())
    with (
        pytest.raises(ValueError, match=r"gpus_per_worker=1: a node .* torch cannot use there: .*(built|driver)"),
        opened,
    ):
        pass


def test_a_cluster_whose_gpus_nobody_asks_for_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker_resources, "worker_cpus", lambda config: 1.0)
    monkeypatch.setattr(cluster, "session", nullcontext)
    monkeypatch.setattr(cluster, "refuse_local_paths", lambda fields: None)
    for gpus, said in ((0, ""), (4, "the cluster has 4 GPUs: --runtime.gpus-per-worker 1 gives one to each worker")):
        monkeypatch.setattr(cluster, "capacity", lambda gpus=gpus: {"CPU": 8.0, **({"GPU": gpus} if gpus else {})})
        with RayTrain().session(RuntimeConfig(), {}, str(tmp_path), StartTimes()):
            assert said in caplog.text and bool(caplog.messages) == bool(said)


SCRIPT = """
import sys

import ray

from unfused_ray.config import RuntimeConfig
from unfused_ray.runs.start_times import StartTimes
from unfused_ray.training.runtimes.ray_train import RayTrain

ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False)
with RayTrain().session(RuntimeConfig(gpus_per_worker=1), {}, sys.argv[1], StartTimes()):
    pass
"""


@pytest.mark.slow
@needs_no_gpu
def test_a_node_that_only_claims_a_gpu_is_asked_by_a_task(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True)
    assert ended.returncode == 1
    assert (
        "ValueError: runtime.gpus_per_worker=1: a node of the cluster has a GPU that torch cannot use" in ended.stderr
    )
