"""The loop has labels before gradients, counts damaged clips, and ends a run that diverges, collapses or fails."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from support.runs import SETTINGS, STEPS, history, train, weights
from support.sources import write_source
from support.steps import CONFIGS, steps_of

from unfused_ray.clustering.assignment import read_assignment
from unfused_ray.config import PretrainConfig
from unfused_ray.methods.decar import DecarV2
from unfused_ray.methods.method import BlockOutput
from unfused_ray.runs import run
from unfused_ray.runs.files import read_file
from unfused_ray.training.worker.learner import Learner


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


def test_a_damaged_shard_is_counted_and_not_clustered(config: Callable[..., PretrainConfig], tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    write_source(folder, [[66], [30]])  # three full global batches, so every epoch has every clip
    shard = folder / "00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-20] + bytes(20))
    job = config("run", data=(str(folder),))
    status = train(job)
    assert status.state == "finished"
    assert "60 times" in status.message
    assert [entry["damaged_clips"] for entry in history(Path(job.output))] == [30, 30]
    assert [entry["zero_embeddings"] for entry in history(Path(job.output))] == [30, 30]
    saved = run.Run(job.output).status()
    assert saved is not None
    assert saved.message == status.message
    assert np.isfinite([entry["loss"] for entry in history(Path(job.output))]).all()


def test_a_compiled_run_learns_the_same(
    config: Callable[..., PretrainConfig], undisturbed: Callable[[str], Path]
) -> None:
    job = config("run", runtime__compile_backend="aot_eager")  # this backend needs no compiler
    assert train(job).state == "finished"
    compiled, eager = weights(Path(job.output)), weights(undisturbed("bank"))
    assert compiled.keys() == eager.keys()
    # Compiled code pools after batch norm, so rounding differs. A bias before batch norm has rounding errors for a
    # gradient; Adam makes whole steps of them, and the running mean follows.
    follows_rounding = re.compile(r"conv\.\d\.(0\.bias|1\.running_mean)|exp_avg$")
    for name in filter(lambda name: not follows_rounding.search(name), eager):
        np.testing.assert_allclose(compiled[name], eager[name], rtol=1e-3, atol=1e-5, err_msg=name)
    losses = [[entry["loss"] for entry in history(run)] for run in (Path(job.output), undisturbed("bank"))]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_gradients_of_a_compiled_block_outlast_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend cudagraphs overwrites these gradients in its next run; here the test does it."""
    step = steps_of(CONFIGS["tiny"].replace({"runtime.compile_backend": "eager"}), torch.device("cpu"))
    forward, given = Learner._forward, list[torch.Tensor]()

    def overwriting(self: Learner, *arguments: Any) -> Any:
        while given:
            given.pop().fill_(torch.nan)
        return forward(self, *arguments)

    monkeypatch.setattr(Learner, "_forward", overwriting)
    for parameter in step.learner.method.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda parameter: given.append(parameter.grad))
    step()
    assert given
    assert step.learner.finite_check.first_not_finite(late=0) is None


@pytest.mark.parametrize("step", [0, STEPS - 1])  # a checkpoint follows the last step
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
    assert re.fullmatch(f"signs of a collapse after epoch 1: {signs}", status.message)
    assert "signs of a collapse" not in caplog.text  # only the status says it
    assert [entry["collapse_signs"] for entry in history(Path(job.output))] == [2.0]

    going_on = train(config("run", **limits))  # limits may change on a resume
    message = "signs of a collapse after 2 of 2 epochs, first after epoch 1"
    assert (going_on.state, going_on.message) == ("finished", message)
    assert run.Run(job.output).status() == replace(going_on, updated=ANY)
    assert [entry["collapse_signs"] for entry in history(Path(job.output))] == [2.0, 2.0]
    assert "signs of a collapse after epoch 2" in caplog.text and "; training continues" in caplog.text


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
