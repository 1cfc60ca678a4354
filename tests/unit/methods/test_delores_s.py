"""DeLoRes-S equals a naive reference; clips that do not count change nothing."""

from __future__ import annotations

import pytest
import torch
from support.views import BLOCK, NUM_MELS, similar_vectors, views
from torch import Tensor

from unfused_ray.config import DeloresSConfig, EncoderConfig
from unfused_ray.methods.delores_s import DeloresS, correlation_sums


def naive_sums(first_ND: Tensor, second_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the definition, one pair of features at a time."""
    invariance, redundancy = first_ND.new_zeros(()), first_ND.new_zeros(())
    for i in range(first_ND.shape[1]):
        for j in range(second_ND.shape[1]):
            a, b = first_ND[:, i] - first_ND[:, i].mean(), second_ND[:, j] - second_ND[:, j].mean()
            deviations = ((a * a).mean() + 1e-5).sqrt() * ((b * b).mean() + 1e-5).sqrt()
            correlation = (a * b).mean() / deviations
            if i == j:
                invariance = invariance + (1 - correlation) ** 2
            else:
                redundancy = redundancy + correlation**2
    return invariance, redundancy


def test_both_sums_and_their_gradients_are_those_of_the_definition() -> None:
    naive = similar_vectors(0).requires_grad_()
    expected = torch.stack(naive_sums(*naive))
    (expected[0] + 0.3 * expected[1]).backward()

    ours = similar_vectors(0).float().requires_grad_()
    found = torch.stack(correlation_sums(*ours, torch.ones(7)))
    (found[0] + 0.3 * found[1]).backward()
    torch.testing.assert_close(found, expected.float())
    torch.testing.assert_close(ours.grad, naive.grad.float(), rtol=1e-4, atol=1e-5)


def test_clips_of_weight_0_are_in_no_correlation() -> None:
    kept = similar_vectors(1, num_clips=5)
    spoilt = torch.cat([kept[:, :2], 100 * similar_vectors(2, num_clips=2), kept[:, 2:]], dim=1).requires_grad_()
    weights = torch.tensor([1.0, 1, 0, 0, 1, 1, 1], dtype=torch.float64)
    found = correlation_sums(*spoilt, weights)
    torch.testing.assert_close(found, correlation_sums(*kept, torch.ones(5, dtype=torch.float64)))
    sum(found).backward()
    assert not spoilt.grad[:, weights == 0].any()


def test_equal_views_of_independent_features_have_no_loss() -> None:
    corners = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    invariance, redundancy = correlation_sums(corners, corners, torch.ones(4))
    assert invariance == pytest.approx(0, abs=1e-8)
    assert redundancy == pytest.approx(0, abs=1e-8)


def test_scale_and_offset_of_a_feature_do_not_count() -> None:
    first, second = similar_vectors(3)
    moved = first * torch.tensor([10.0, 3, 5, 2, 7]) + torch.arange(5)
    torch.testing.assert_close(
        correlation_sums(moved, second, torch.ones(7, dtype=torch.float64)),
        correlation_sums(first, second, torch.ones(7, dtype=torch.float64)),
        rtol=1e-3,
        atol=1e-3,
    )


def build(off_diagonal: float = 0.5) -> DeloresS:
    torch.manual_seed(0)
    config = DeloresSConfig(decorrelation_dim=8, off_diagonal=off_diagonal)
    return DeloresS(config, EncoderConfig(channels=4, width=12, dropout=0.0), NUM_MELS)


def test_the_loss_of_a_global_batch_is_that_of_the_definition_over_all_its_blocks() -> None:
    method = build()
    outputs = [method(views(seed), torch.ones(BLOCK), torch.empty(0)) for seed in range(2)]
    batch = {name: torch.cat([output[name] for output in outputs]) for name in outputs[0]}
    output = method.batch_loss(batch, torch.ones(2 * BLOCK))
    invariance, redundancy = naive_sums(batch["first"].double(), batch["second"].double())
    assert output.loss.item() / (2 * BLOCK) == pytest.approx((invariance + 0.5 * redundancy).item(), rel=1e-4)
    assert output.terms["invariance"].item() / (2 * BLOCK) == pytest.approx(invariance.item(), rel=1e-4)
    assert output.terms["redundancy"].item() / (2 * BLOCK) == pytest.approx(redundancy.item(), rel=1e-4)
    output.loss.backward()
    assert all(parameter.grad.any() for parameter in method.parameters())


def test_a_batch_of_which_no_clip_counts_has_neither_loss_nor_gradient() -> None:
    method = build()
    output = method.batch_loss(method(views(0), torch.zeros(BLOCK), torch.empty(0)), torch.zeros(BLOCK))
    output.loss.backward()
    assert output.loss == 0
    assert all(not parameter.grad.any() for parameter in method.parameters())
