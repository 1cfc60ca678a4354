"""DECAR-v2's loss and bank embeddings equal naive references, also for global batches spread over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from unfused_ray.config import DecarConfig, EncoderConfig
from unfused_ray.methods.decar import DecarV2, prototype_loss
from unfused_ray.methods.method import BlockOutput
from unfused_ray.models.batch_norm import BlockBatchNorm, update_running_statistics
from unfused_ray.training.worker.collectives import DistributedCollectives

NUM_MELS, NUM_FRAMES, BLOCK, CLUSTERS = 16, 16, 6, (4, 3)


def unit_rows(rng: np.random.Generator, *shape: int) -> np.ndarray:
    rows = rng.standard_normal(shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def naive_loss(z_VBD: Tensor, prototypes_KD: list[Tensor], labels_HB: Tensor, temperature: float) -> list[Tensor]:
    """Compute the definition, one clip, view and head at a time."""
    losses = []
    for clip in range(z_VBD.shape[1]):
        terms = []
        for view in range(z_VBD.shape[0]):
            for prototypes, labels in zip(prototypes_KD, labels_HB, strict=True):
                scores = torch.stack([torch.dot(z_VBD[view, clip], p) / temperature for p in prototypes])
                terms.append(-scores[labels[clip]] + scores.exp().sum().log())
        losses.append(sum(terms) / len(terms))
    return losses


@pytest.mark.parametrize("clusters", [(5,), (5, 3, 2)])
def test_loss_and_gradient_are_those_of_the_definition(clusters: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    z = unit_rows(rng, 2, 7, 4)
    prototypes = [unit_rows(rng, k, 4) for k in clusters]
    labels = torch.tensor(np.stack([rng.integers(k, size=7) for k in clusters]))

    z_naive = torch.tensor(z, requires_grad=True)
    expected = torch.stack(naive_loss(z_naive, [torch.tensor(p) for p in prototypes], labels, 0.2))
    expected.sum().backward()

    z_ours = torch.tensor(z, dtype=torch.float32, requires_grad=True)
    loss, _ = prototype_loss(z_ours, [torch.tensor(p, dtype=torch.float32) for p in prototypes], labels, 0.2)
    loss.sum().backward()
    torch.testing.assert_close(loss, expected.float())
    torch.testing.assert_close(z_ours.grad, z_naive.grad.float())


def test_loss_is_that_of_float32_where_networks_compute_in_bfloat16() -> None:
    rng = np.random.default_rng(0)
    z = torch.tensor(unit_rows(rng, 2, 7, 64), dtype=torch.float32)
    prototypes = [torch.tensor(unit_rows(rng, 9, 64), dtype=torch.float32)]
    labels = torch.tensor(rng.integers(9, size=(1, 7)))
    with torch.autocast("cpu", torch.bfloat16):
        lower, _ = prototype_loss(z, prototypes, labels, 0.1)
    assert torch.equal(lower, prototype_loss(z, prototypes, labels, 0.1)[0])


def test_agreement_is_the_share_of_views_and_heads_whose_nearest_prototype_is_the_label() -> None:
    axes = torch.eye(3)
    z = torch.stack([axes[[0, 1]], axes[[0, 2]]])  # the first clip's views agree, the second's differ
    prototypes = [axes, axes.roll(1, dims=0)]  # axis i: prototype i of head 0, i + 1 of head 1
    labels = torch.tensor([[0, 1], [1, 0]])
    _, agreement = prototype_loss(z, prototypes, labels, 0.1)
    assert agreement.tolist() == [1.0, 0.5]


def build(bank_embedding: str = "view0_clean", dropout: float = 0.3) -> DecarV2:
    torch.manual_seed(0)
    config = DecarConfig(projection_hidden=8, projection_dim=5, num_clusters=CLUSTERS, bank_embedding=bank_embedding)
    method = DecarV2(config, EncoderConfig(channels=4, width=12, dropout=dropout), NUM_MELS)
    rng = np.random.default_rng(1)
    method.begin_epoch([unit_rows(rng, k, 5).astype(np.float32) for k in CLUSTERS])
    return method


def block(index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return views, weights and labels of a block; its last clip does not count."""
    generator = torch.Generator().manual_seed(index)
    views = torch.randn(2, BLOCK, NUM_MELS, NUM_FRAMES, generator=generator)
    labels = torch.stack([torch.randint(k, (BLOCK,), generator=generator) for k in CLUSTERS])
    weights = torch.ones(BLOCK)
    weights[-1] = 0
    return views, weights, labels


def gradients(method: DecarV2) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in method.named_parameters()}


def test_a_clip_of_weight_0_adds_neither_loss_nor_gradient() -> None:
    views, weights, labels = block(0)
    results = []
    for label_of_last in (0, 1):
        method = build(dropout=0.0)
        labels[:, -1] = label_of_last
        output = method(views, weights, labels)
        output.loss.backward()
        results.append((output.loss.detach(), dict(output.terms), gradients(method)))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)

    method = build()
    output = method(views, torch.zeros(BLOCK), labels)
    output.loss.backward()
    assert output.loss == 0
    assert output.terms["agreement"] == 0
    assert all(not gradient.any() for gradient in gradients(method).values())


def test_loss_of_a_block_is_the_sum_over_clips_of_the_definition() -> None:
    views, weights, labels = block(0)
    method = build(dropout=0.0)
    output = method(views, weights, labels)
    # Batch norm makes a view's projections depend on all views of the block, so the reference embeds them together.
    z = build(dropout=0.0).embed(views.flatten(0, 1)).unflatten(0, (2, BLOCK))
    losses = naive_loss(z, method._prototypes_KD, labels, method.config.temperature)
    torch.testing.assert_close(output.loss.detach(), sum(losses[:-1]))


def test_the_bank_gets_the_first_views_projection_without_dropout() -> None:
    views, weights, labels = block(0)
    noisy, clean = build(dropout=0.6), build(dropout=0.0)
    embeddings = noisy(views, weights, labels).embeddings
    # The trunk's batch norm sees both views, the projector's only the first.
    hidden = clean.encoder.hidden(clean.encoder.blocks(views.flatten(0, 1))[-1])[:BLOCK]
    frames = F.relu(clean.encoder.fc2(hidden))
    expected = clean.projector(frames.amax(1) + frames.mean(1))
    torch.testing.assert_close(embeddings, expected.detach())
    assert not embeddings.requires_grad


def test_the_bank_can_get_the_mean_of_the_views_as_trained() -> None:
    views, weights, labels = block(0)
    embeddings = build("mean_of_views", dropout=0.0)(views, weights, labels).embeddings
    z = build(dropout=0.0).embed(views.flatten(0, 1)).unflatten(0, (2, BLOCK))
    torch.testing.assert_close(embeddings, F.normalize(z.mean(0), dim=-1))
    assert not embeddings.requires_grad


@pytest.mark.parametrize("compute", [DecarV2.embed, None], ids=["embedding pass", "bank embeddings"])
def test_embeddings_for_the_bank_leave_no_trace_in_batch_norm(compute: Callable[..., Tensor] | None) -> None:
    views, weights, labels = block(0)
    pending = []
    for bank_embedding in ("view0_clean", "mean_of_views"):  # the second adds no computation to the loss
        method = build(bank_embedding)
        torch.manual_seed(7)
        if compute is None:
            method(views, weights, labels)
        else:
            compute(method, views[0])
        norms = [module for module in method.modules() if isinstance(module, BlockBatchNorm)]
        pending.append(torch.cat([norm.pending for norm in norms]))
    assert torch.equal(*pending)
    assert pending[0].any() == (compute is None)


NUM_BLOCKS = 4


def accumulate(blocks: Iterable[int], model: Callable[..., BlockOutput]) -> None:
    """Add the gradient of some blocks, as their share of the mean over a global batch of ``NUM_BLOCKS``."""
    for index in blocks:
        torch.manual_seed(100 + index)  # each block has its own dropout
        (model(*block(index)).loss / (NUM_BLOCKS * BLOCK)).backward()


def test_gradient_of_a_global_batch_is_the_sum_over_its_blocks() -> None:
    together = build()
    accumulate(range(NUM_BLOCKS), together)
    parts = []
    for index in range(NUM_BLOCKS):
        part = build()
        accumulate([index], part)
        parts.append(gradients(part))
    for name, gradient in gradients(together).items():
        torch.testing.assert_close(gradient, sum(part[name] for part in parts))


def _worker(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    group = DistributedCollectives()
    method = build()
    group.share_weights(method)
    accumulate(range(rank, NUM_BLOCKS, world), method)
    group.add_gradients(method)
    update_running_statistics(method, group.all_reduce)
    safetensors.torch.save_file(gradients(method), f"{folder}/gradients-{rank}")
    safetensors.torch.save_file(method.state_dict(), f"{folder}/state-{rank}")
    rounded = build()
    accumulate(range(rank, NUM_BLOCKS, world), rounded)
    DistributedCollectives(compress=True).add_gradients(rounded)
    safetensors.torch.save_file(gradients(rounded), f"{folder}/rounded-{rank}")
    dist.destroy_process_group()


def test_two_processes_have_the_gradient_and_the_running_statistics_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    torch.multiprocessing.spawn(_worker, (2, str(tmp_path)), nprocs=2)
    alone = build()
    accumulate(range(NUM_BLOCKS), alone)
    update_running_statistics(alone)
    for rank in range(2):
        torch.testing.assert_close(safetensors.torch.load_file(tmp_path / f"gradients-{rank}"), gradients(alone))
        torch.testing.assert_close(safetensors.torch.load_file(tmp_path / f"state-{rank}"), dict(alone.state_dict()))
    rounded, others = (safetensors.torch.load_file(tmp_path / f"rounded-{rank}") for rank in range(2))
    for name, gradient in rounded.items():
        assert torch.equal(gradient, others[name])
        assert torch.equal(gradient, gradient.bfloat16().float())
    # Shares and their sum are rounded to 8 bits. For some weights the shares cancel, so compare the whole gradient.
    sent, whole = (torch.cat([each[name].ravel() for name in rounded]) for each in (rounded, gradients(alone)))
    assert 0 < torch.linalg.norm(sent - whole) < 0.01 * torch.linalg.norm(whole)
