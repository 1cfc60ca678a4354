"""SLICER equals references written with loops: both contrasts, the queue and the teacher, step by step."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from unfused_ray.config import EncoderConfig, SlicerConfig
from unfused_ray.methods.slicer import Slicer, cluster_loss, size_entropy

NO_LABELS = torch.empty(0, 6, dtype=torch.int64)
CONFIG = SlicerConfig(projection_dim=5, num_clusters=4, queue=16, ema_decay=0.9, temperature=0.2, entropy=0.5)


@pytest.fixture
def method() -> Slicer:
    torch.manual_seed(0)
    method = Slicer(CONFIG, EncoderConfig(channels=4, width=8, dropout=0.0), num_mels=16).train()
    with torch.no_grad():  # as after some steps: teacher and student differ
        for parameter in method.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return method


def _rows(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _batch(num_clips: int = 6) -> dict[str, torch.Tensor]:
    return {
        "queries": F.normalize(_rows(num_clips, 2, 5, seed=1), dim=2),
        "keys": F.normalize(_rows(num_clips, 2, 5, seed=2), dim=2),
        "clusters": _rows(num_clips, 2, 4, seed=3).softmax(2),
    }


def _reference_cluster_loss(one: torch.Tensor, other: torch.Tensor, temperature: float) -> torch.Tensor:
    """Contrast every column of either view with all others of both."""
    columns = [*one.T, *other.T]
    num_clusters, losses = len(one.T), []
    for i, column in enumerate(columns):
        similarities = {
            j: (column @ rival) / (column.norm() * rival.norm()) / temperature
            for j, rival in enumerate(columns)
            if j != i
        }
        counterpart = (i + num_clusters) % len(columns)
        losses.append(torch.logsumexp(torch.stack(list(similarities.values())), 0) - similarities[counterpart])
    return torch.stack(losses).mean()


def _reference_loss(batch: dict[str, torch.Tensor], queue: list[torch.Tensor], weights: list[float]) -> torch.Tensor:
    counted = [clip for clip, weight in enumerate(weights) if weight]
    total = torch.zeros((), dtype=torch.float64)
    for clip in counted:
        for view in range(2):
            query = batch["queries"][clip, view]
            logits = torch.stack([query @ key / 0.2 for key in [batch["keys"][clip, 1 - view], *queue]])
            total = total + torch.logsumexp(logits, 0) - logits[0]
    clusters = batch["clusters"][counted]
    per_batch = _reference_cluster_loss(clusters[:, 0], clusters[:, 1], 1.0)
    for view in range(2):
        for share in clusters[:, view].mean(0):
            per_batch = per_batch + 0.5 * share * share.log()
    return total + len(counted) * per_batch


@pytest.mark.parametrize("weights", [[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 1]])
def test_loss_and_gradient_are_those_of_the_reference(method: Slicer, weights: list[float]):
    method.double()
    past = list(F.normalize(_rows(7, 5, seed=4), dim=1))
    method.queue.push(torch.stack(past))
    batch = {name: rows.requires_grad_() for name, rows in _batch().items()}
    ours = method.batch_loss(batch, torch.tensor(weights, dtype=torch.float64)).loss
    expected = _reference_loss(batch, past, weights)
    torch.testing.assert_close(ours, expected)
    rows = [batch["queries"], batch["clusters"]]
    torch.testing.assert_close(torch.autograd.grad(ours, rows), torch.autograd.grad(expected, rows))


def test_a_clip_without_weight_changes_neither_loss_nor_any_gradient(method: Slicer):
    method.double()
    method.queue.push(F.normalize(_rows(7, 5, seed=4), dim=1))
    weights = torch.tensor([1.0, 1, 0, 1, 1, 1], dtype=torch.float64)
    results = []
    for change in (0.0, 1.0):
        batch = _batch()
        for rows in batch.values():
            rows[2] = rows[2].roll(1, -1) if change else rows[2]
            rows.requires_grad_()
        loss = method.batch_loss(batch, weights).loss
        results.append((loss, *torch.autograd.grad(loss, [batch["queries"], batch["clusters"]])))
    torch.testing.assert_close(results[0], results[1])
    assert not results[0][1][2].any()
    assert not results[0][2][2].any()


def test_views_become_queries_keys_and_probabilities_of_their_clip(method: Slicer):
    views = _rows(2, 6, 16, 24, seed=5).float()
    batch = method(views, torch.tensor([1.0, 1, 1, 0, 1, 1]), NO_LABELS)
    embeddings = method.encoder(views.flatten(0, 1)).unflatten(0, (2, 6))
    taught = method.teacher_encoder(views.flatten(0, 1)).unflatten(0, (2, 6))
    for clip in range(6):
        for view in range(2):
            query = method.projector(embeddings[view, clip])
            torch.testing.assert_close(batch["queries"][clip, view], query / query.norm())
            key = method.teacher_projector(taught[view, clip])
            expected = torch.zeros(5) if clip == 3 else (key / key.norm()).detach()
            torch.testing.assert_close(batch["keys"][clip, view], expected)
            shares = method.cluster_projector(embeddings[view, clip]).exp()
            torch.testing.assert_close(batch["clusters"][clip, view], shares / shares.sum())
    assert not batch["keys"].requires_grad


def test_all_of_the_student_is_trained_and_nothing_of_the_teacher(method: Slicer):
    batch = method(_rows(2, 6, 16, 24, seed=5).float(), torch.ones(6), NO_LABELS)
    method.after_step(batch)
    method.batch_loss(batch, torch.ones(6)).loss.backward()
    for name, parameter in method.named_parameters():
        assert parameter.requires_grad == (not name.startswith("teacher_"))
        assert (parameter.grad is not None and bool(parameter.grad.any())) == parameter.requires_grad


def test_after_each_step_the_queue_has_its_keys_and_the_teacher_has_followed(method: Slicer):
    pushed: list[torch.Tensor] = []
    for step in range(3):
        batch = {name: rows.float() for name, rows in _batch().items()}
        batch["keys"][step] = 0  # a clip without weight
        students = [*method.encoder.parameters(), *method.projector.parameters()]
        teachers = [*method.teacher_encoder.parameters(), *method.teacher_projector.parameters()]
        expected = [0.9 * teacher + 0.1 * student for teacher, student in zip(teachers, students, strict=True)]
        before = [student.clone() for student in students]
        method.after_step(batch)
        torch.testing.assert_close([parameter.data for parameter in teachers], expected)
        assert all(map(torch.equal, students, before))
        pushed += [batch["keys"][clip, view] for view in range(2) for clip in range(6)]
        newest = torch.stack(pushed[-CONFIG.queue :])
        assert torch.equal(method.queue.keys[-len(newest) :], newest)


@settings(max_examples=25)
@given(st.integers(2, 6), st.integers(2, 5), st.floats(0.1, 2), st.integers(0, 99))
def test_the_cluster_loss_is_the_references_and_the_same_for_the_views_swapped(clips, clusters, temperature, seed):
    one, other = _rows(clips, clusters, seed=seed).softmax(1), _rows(clips, clusters, seed=seed + 100).softmax(1)
    weights = torch.ones(clips, dtype=torch.float64)
    loss = cluster_loss(one, other, weights, temperature)
    torch.testing.assert_close(loss, _reference_cluster_loss(one, other, temperature))
    torch.testing.assert_close(cluster_loss(other, one, weights, temperature), loss)


def test_the_entropy_is_log_k_for_equal_clusters_and_nothing_for_one():
    assert math.isclose(size_entropy(torch.eye(4), torch.ones(4)).item(), math.log(4), rel_tol=1e-6)
    everyone_in_one = torch.tensor([[0.0, 1, 0, 0]]).expand(4, -1)
    assert math.isclose(size_entropy(everyone_in_one, torch.ones(4)).item(), 0, abs_tol=1e-30)


def test_a_batch_without_weight_gives_finite_gradients(method: Slicer):
    batch = method(_rows(2, 6, 16, 24, seed=5).float(), torch.zeros(6), NO_LABELS)
    output = method.batch_loss(batch, torch.zeros(6))
    output.loss.backward()
    assert output.loss == 0
    assert all(parameter.grad.isfinite().all() for parameter in method.parameters() if parameter.requires_grad)
