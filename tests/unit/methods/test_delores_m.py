"""DeLoRes-M equals a naive reference, step by step: loss, gradient, the keys' encoder and the queue."""

from __future__ import annotations

from typing import Any

import torch
from support.views import BLOCK, NUM_MELS, views
from torch import Tensor

from unfused_ray.config import DeloresMConfig, EncoderConfig
from unfused_ray.methods.delores_m import DeloresM

QUEUE = 8
NO_LABELS = torch.empty(0)


def build(**settings: Any) -> DeloresM:
    torch.manual_seed(0)
    values = {"projection_dim": 5, "queue": QUEUE, "ema_decay": 0.8, "temperature": 0.3, "decorrelation_dim": 7}
    config = DeloresMConfig(**values | {"on_diagonal": 0.2, "off_diagonal": 0.1} | settings)
    return DeloresM(config, EncoderConfig(channels=4, width=12, dropout=0.0), NUM_MELS)


def naive_loss(batch: dict[str, Tensor], weights: Tensor, past_keys: list[Tensor], config: DeloresMConfig) -> Tensor:
    """Compute the definition over the clips that count, one clip, key and pair of features at a time."""
    counted = [i for i, weight in enumerate(weights) if weight]
    loss = batch["query"].new_zeros(())
    for i in counted:
        own = batch["query"][i] @ batch["key"][i] / config.temperature
        others = [batch["query"][i] @ key / config.temperature for key in past_keys]
        loss = loss - own + torch.stack([own, *others]).exp().sum().log()
    for block in range(3):
        query, key = (batch[f"{name}_block{block}"][counted] for name in ("query", "key"))
        for i in range(query.shape[1]):
            for j in range(key.shape[1]):
                a, b = query[:, i] - query[:, i].mean(), key[:, j] - key[:, j].mean()
                correlation = (a * b).mean() / (((a * a).mean() + 1e-5).sqrt() * ((b * b).mean() + 1e-5).sqrt())
                part = config.on_diagonal * (1 - correlation) ** 2 if i == j else config.off_diagonal * correlation**2
                loss = loss + len(counted) * part
    return loss


def random_batch(method: DeloresM, num_clips: int, weights: Tensor) -> dict[str, Tensor]:
    """Return a random batch in the form that ``forward`` returns, float64."""
    rng = torch.Generator().manual_seed(1)
    batch = {
        name: torch.nn.functional.normalize(torch.randn(num_clips, 5, generator=rng, dtype=torch.float64))
        for name in ("query", "key")
    }
    batch["key"] *= weights[:, None]
    for block in range(3):
        shared = torch.randn(num_clips, 7, generator=rng, dtype=torch.float64)
        for name in ("query", "key"):
            noise = torch.randn(num_clips, 7, generator=rng, dtype=torch.float64)
            batch[f"{name}_block{block}"] = shared + noise / 2
    return batch


def test_loss_and_gradients_are_those_of_the_definition() -> None:
    method = build()
    weights = torch.tensor([1.0, 1, 0, 1, 1, 1, 0, 1, 1], dtype=torch.float64)
    past_keys = torch.nn.functional.normalize(torch.randn(3, 5, dtype=torch.float64))
    method.queue.push(past_keys.float())

    naive = {name: tensor.requires_grad_() for name, tensor in random_batch(method, 9, weights).items()}
    expected = naive_loss(naive, weights, list(past_keys), method.config)
    expected.backward()

    ours = {name: tensor.detach().float().requires_grad_() for name, tensor in naive.items()}
    loss = method.batch_loss(ours, weights.float()).loss
    loss.backward()
    torch.testing.assert_close(loss, expected.float(), rtol=1e-4, atol=1e-5)
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor.grad, naive[name].grad.float(), rtol=1e-3, atol=1e-5)
        assert not tensor.grad[weights == 0].any()


def test_three_steps_have_the_loss_the_average_and_the_queue_of_the_definition() -> None:
    method = build()
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    average = {name: value.double() for name, value in state_of(method, "key_").items()}
    queue: list[Tensor | None] = []  # keys of the newest clips, None if a clip did not count
    for step in range(3):
        weights = torch.ones(BLOCK)
        weights[step] = 0
        batch = dict(method(views(step), weights, NO_LABELS))
        output = method.batch_loss(batch, weights)
        precise = {name: tensor.detach().double() for name, tensor in batch.items()}
        past_keys = [key for key in queue if key is not None]
        expected = naive_loss(precise, weights, past_keys, method.config)
        torch.testing.assert_close(output.loss.detach(), expected.float(), rtol=1e-4, atol=1e-4)

        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        method.after_step({name: tensor.detach() for name, tensor in batch.items()})
        for name, value in state_of(method, "").items():
            average[name] = 0.8 * average[name] + 0.2 * value.double()
        kept = {name: value.double() for name, value in state_of(method, "key_").items()}
        torch.testing.assert_close(kept, average, rtol=1e-5, atol=1e-6)
        queue = [*queue, *(precise["key"][i] if weights[i] else None for i in range(BLOCK))][-QUEUE:]
        rows = torch.stack([torch.zeros(5, dtype=torch.float64) if key is None else key for key in queue])
        torch.testing.assert_close(method.queue.keys[-len(rows) :].double(), rows)


def state_of(method: DeloresM, prefix: str) -> dict[str, Tensor]:
    """Return copies of the weights of encoder and projector, or of their averages, under the same names."""
    return {
        f"{module}.{name}": parameter.detach().clone()
        for module in ("encoder", "projector")
        for name, parameter in method.get_submodule(prefix + module).named_parameters()
    }


def test_no_gradient_reaches_the_encoder_of_the_keys() -> None:
    method = build()
    method.queue.push(torch.nn.functional.normalize(torch.randn(4, 5)))
    method.batch_loss(method(views(0), torch.ones(BLOCK), NO_LABELS), torch.ones(BLOCK)).loss.backward()
    for name, parameter in method.named_parameters():
        if name.startswith("key_"):
            assert parameter.grad is None
            assert not parameter.requires_grad
        else:
            assert parameter.grad.any(), name


def test_heads_learn_from_the_keys_too() -> None:
    method = build()
    batch = method(views(0), torch.ones(BLOCK), NO_LABELS)
    weights = list(method.heads.parameters())
    for name in ("query", "key"):
        of_view = torch.autograd.grad(
            batch[f"{name}_block1"].square().sum(), weights, retain_graph=True, allow_unused=True
        )
        assert any(gradient is not None and gradient.any() for gradient in of_view)


def test_the_features_of_a_clip_of_weight_0_do_not_count_and_leave_no_key() -> None:
    method = build()
    method.queue.push(torch.nn.functional.normalize(torch.randn(4, 5)))
    weights = torch.ones(BLOCK)
    weights[-1] = 0
    batch = {name: tensor.detach() for name, tensor in method(views(0), weights, NO_LABELS).items()}
    changed = {name: tensor.clone() for name, tensor in batch.items()}
    for name, tensor in changed.items():
        if name != "key":
            tensor[-1] = 7.0
    torch.testing.assert_close(method.batch_loss(changed, weights).loss, method.batch_loss(batch, weights).loss)
    method.after_step(batch)
    assert not method.queue.keys[-1].any()


def test_equal_views_are_told_from_past_keys() -> None:
    method = build(on_diagonal=0, off_diagonal=0)
    weights = torch.ones(BLOCK)
    first = method(views(0, noise=0.0), weights, NO_LABELS)
    assert method.batch_loss(first, weights).loss.item() == 0  # there is no other key
    method.after_step({name: tensor.detach() for name, tensor in first.items()})
    torch.testing.assert_close(first["query"], first["key"])
    second = method(views(1, noise=0.0), weights, NO_LABELS)
    assert 0 < method.batch_loss(second, weights).loss.item() / BLOCK < torch.log(torch.tensor(1.0 + BLOCK))


def test_queue_and_average_are_in_the_state() -> None:
    method, other = build(), build()
    method.queue.push(torch.ones(2, 5))
    for parameter in method.key_encoder.parameters():
        parameter.add_(1)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.queue.keys, method.queue.keys)
    assert all(map(torch.equal, other.key_encoder.parameters(), method.key_encoder.parameters()))
