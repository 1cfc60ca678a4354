"""Averages of weights and queues of keys equal naive references, step by step."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unfused_ray import recipes
from unfused_ray.methods.momentum import KeyQueue, follow, target_of
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.training.stages import stage_of


def _unit(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def test_a_target_begins_as_its_network_is_not_trained_and_follows_it_by_the_decay():
    online = nn.Linear(3, 2)
    target = target_of(online)
    expected = online.weight.detach().clone()
    assert torch.equal(target.weight, expected)
    assert not any(parameter.requires_grad for parameter in target.parameters())
    for step in range(4):
        nn.init.constant_(online.weight, step)
        follow(target, online, decay=0.9)
        expected = 0.9 * expected + 0.1 * step
        torch.testing.assert_close(target.weight, expected)
    assert torch.equal(online.weight, torch.full((2, 3), 3.0))


def test_a_queue_holds_the_newest_keys_and_a_batch_larger_than_itself_leaves_its_last():
    queue, pushed = KeyQueue(5, 4).double(), []
    for step, size in enumerate([2, 2, 3, 7]):
        keys = _unit(size, 4, seed=step)
        queue.push(keys)
        pushed += list(keys)
        held = [key for key in queue.keys if key.any()]
        assert torch.equal(torch.stack(held), torch.stack(pushed[-5:]))
    assert "keys" in queue.state_dict()


def test_infonce_and_its_gradient_are_those_of_loops_and_a_row_of_zeros_is_no_negative():
    queries, keys = _unit(3, 4, seed=1).requires_grad_(), _unit(3, 4, seed=2)
    queue = KeyQueue(6, 4).double()
    queue.push(torch.cat([_unit(2, 4, seed=3), torch.zeros(1, 4, dtype=torch.float64), _unit(1, 4, seed=4)]))
    negatives = [*_unit(2, 4, seed=3), *_unit(1, 4, seed=4)]
    expected = []
    for query, key in zip(queries, keys, strict=True):
        similarities = [(query * other).sum() / 0.2 for other in [key, *negatives]]
        expected.append(torch.logsumexp(torch.stack(similarities), 0) - similarities[0])
    ours = queue.loss(queries, keys, temperature=0.2)
    torch.testing.assert_close(ours, torch.stack(expected))
    gradients = [torch.autograd.grad(loss.sum(), queries)[0] for loss in (ours, torch.stack(expected))]
    torch.testing.assert_close(*gradients)


def test_without_negatives_there_is_nothing_to_learn():
    queries = _unit(3, 4).requires_grad_()
    loss = KeyQueue(6, 4).double().loss(queries, _unit(3, 4, seed=1), temperature=0.1)
    (gradient,) = torch.autograd.grad(loss.sum(), queries)
    assert math.isclose(loss.sum().item(), 0, abs_tol=1e-12)
    assert not gradient.any()


METHODS = [name for name, (_, recipe) in recipes.PRETRAIN.items() if name.endswith("-tiny")]


@pytest.mark.parametrize("name", METHODS)
def test_after_a_warm_start_every_encoder_of_a_method_has_the_same_weights(name: str):
    config = recipes.PRETRAIN[name][1]
    trained = AudioNTT2020(config.encoder, config.front_end.num_mels).state_dict()
    method = stage_of(config).build_method(())
    method.load_encoder(trained)
    encoders = [module for module in method.modules() if isinstance(module, AudioNTT2020)]
    assert encoders
    for encoder in encoders:
        torch.testing.assert_close(dict(encoder.state_dict()), dict(trained), rtol=0, atol=0)
