"""The first worker group continues from the driver's resume point; a group that is started anew looks again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from support.runs import tiny

from unfused_ray import storage
from unfused_ray.data.shards.format import Statistics
from unfused_ray.runs.checkpoints import CheckpointStore, Position
from unfused_ray.runs.resume import find_resume_point
from unfused_ray.training.job import TrainingJob
from unfused_ray.training.runtimes import remote_coordinator
from unfused_ray.training.runtimes.ray_train import _WorkerMain
from unfused_ray.training.runtimes.remote_coordinator import CoordinatorActor


@pytest.fixture
def restarted(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Whether Ray says of an actor that its process was restarted."""
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
    store = CheckpointStore(str(run), keep=2)
    store.begin(Position(0, step))
    store.commit(Position(0, step), {}, {})


def test_only_a_group_that_is_started_anew_looks_for_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
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

    commit(other, 3)  # of a fork without a checkpoint of its own the group looks at the other run
    forked = replace(job, config=job.config.replace(fork=str(other)), run_uri=str(tmp_path / "new"))
    found = replace(later, job=forked)._resume_point()
    assert (found.checkpoint.position, found.position, found.bank_uri) == (Position(0, 3), Position(0, 0), None)
