"""COLA equals a naive reference; clips that do not count change nothing."""

from __future__ import annotations

import pytest
import torch
from support.views import BLOCK, NUM_MELS, similar_vectors, views
from torch import Tensor

from unfused_ray.config import ColaConfig, EncoderConfig
from unfused_ray.methods.cola import Cola, bilinear_loss

DIM = 5
NO_LABELS = torch.empty(0)


def naive_losses(anchor_ND: Tensor, positive_ND: Tensor, matrix_DD: Tensor, weights_N: Tensor) -> list[Tensor]:
    """Return the loss of each clip that counts, one pair of clips at a time (arXiv 2010.10915 sec. 2)."""
    counted = [i for i, weight in enumerate(weights_N) if weight]
    losses = []
    for i in counted:
        similarities = torch.stack([anchor_ND[i] @ matrix_DD @ positive_ND[j] for j in counted])
        losses.append(similarities.exp().sum().log() - similarities[counted.index(i)])
    return losses


@pytest.mark.parametrize("left_out", [(), (0, 3)])
def test_loss_and_gradient_are_those_of_the_definition(left_out: tuple[int, ...]) -> None:
    weights = torch.tensor([0.0 if i in left_out else 1.0 for i in range(7)])
    matrix = torch.randn(DIM, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    naive = similar_vectors(0).requires_grad_()
    expected = torch.stack(naive_losses(*naive, matrix, weights)).sum()
    expected.backward()

    ours = similar_vectors(0).float().requires_grad_()
    losses, _ = bilinear_loss(ours[0], ours[1] @ matrix.T.float(), weights)
    loss = (losses * weights).sum()
    loss.backward()
    torch.testing.assert_close(loss, expected.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.grad, naive.grad.float(), rtol=1e-4, atol=1e-5)
    assert not ours.grad[:, weights == 0].any()


def test_a_hit_is_an_anchor_whose_own_positive_is_the_most_similar() -> None:
    axes = torch.eye(3)
    _, hits = bilinear_loss(axes, axes[[0, 2, 1]], torch.ones(3))
    assert hits.tolist() == [1.0, 0.0, 0.0]


def build() -> Cola:
    torch.manual_seed(0)
    return Cola(ColaConfig(projection_dim=DIM), EncoderConfig(channels=4, width=12, dropout=0.0), NUM_MELS)


def test_the_loss_of_a_global_batch_is_that_of_the_definition_over_all_its_blocks() -> None:
    method = build()
    weights = torch.ones(2 * BLOCK)
    weights[-1] = 0
    outputs = [method(views(seed), torch.ones(BLOCK), NO_LABELS) for seed in range(2)]
    batch = {name: torch.cat([output[name] for output in outputs]) for name in outputs[0]}
    output = method.batch_loss(batch, weights)

    # Batch norm makes a view's features depend on both views of its block, so the reference embeds them together.
    embeddings = [build().encoder(views(seed).flatten(0, 1)) for seed in range(2)]
    linear, norm, _ = method.projector
    projected = [torch.tanh(norm(linear(embedding))).unflatten(0, (2, BLOCK)) for embedding in embeddings]
    anchor, positive = torch.cat(projected, dim=1).double()
    expected = sum(naive_losses(anchor, positive, method.similarity.weight.double(), weights))
    torch.testing.assert_close(output.loss.double(), expected, rtol=1e-4, atol=1e-4)
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in method.parameters())
    assert 0 <= output.terms["agreement"] <= 2 * BLOCK - 1


def test_a_batch_of_which_no_clip_counts_has_neither_loss_nor_gradient() -> None:
    method = build()
    output = method.batch_loss(method(views(0), torch.zeros(BLOCK), NO_LABELS), torch.zeros(BLOCK))
    output.loss.backward()
    assert output.loss == 0
    assert all(not parameter.grad.any() for parameter in method.parameters())
