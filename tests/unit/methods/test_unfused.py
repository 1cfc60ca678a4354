"""UnFuSeD's loss and gradient, term by term and as a whole, equal the definition written in loops."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unfused_ray.config import EncoderConfig, UnfusedConfig
from unfused_ray.methods.unfused import Exit, Unfused, distillation_terms
from unfused_ray.models.encoder import flatten_bands
from unfused_ray.models.kernels import max_mean

NUM_VIEWS, HIDDEN = 5, 6
TERMS = ("ce", "ce_branches", "kl", "mse")
HEADS = [pytest.param((4,), id="one head"), pytest.param((4, 3, 2), id="three heads")]


def exits(num_classes: Sequence[int], seed: int = 0) -> list[Exit]:
    """Return outputs of the teacher and three branches for ``NUM_VIEWS`` views, as leaves in float64."""
    rng = np.random.default_rng(seed)

    def leaf(size: int) -> Tensor:
        return torch.tensor(2 * rng.standard_normal((NUM_VIEWS, size)), requires_grad=True)

    return [Exit(leaf(HIDDEN), [leaf(classes) for classes in num_classes]) for _ in range(4)]


def leaves(all_exits: Sequence[Exit]) -> list[Tensor]:
    return [tensor for exit_ in all_exits for tensor in (exit_.features, *exit_.logits)]


def labels_of(num_classes: Sequence[int], count: int = NUM_VIEWS) -> Tensor:
    rng = np.random.default_rng(1)
    return torch.tensor(np.stack([rng.integers(classes, size=count) for classes in num_classes]))


def softmax(logits_K: Tensor, temperature: float) -> list[Tensor]:
    powers = [(logit / temperature).exp() for logit in logits_K]
    return [power / sum(powers) for power in powers]


def naive_terms(
    teacher: Exit, branches: Sequence[Exit], labels_HN: Tensor, config: UnfusedConfig
) -> dict[str, list[Tensor]]:
    """Compute the definition, one view, branch, head and class at a time."""
    num_heads, num_views = labels_HN.shape
    terms: dict[str, list[Tensor]] = {name: [] for name in TERMS}
    for view in range(num_views):
        sums = dict.fromkeys(TERMS, torch.zeros((), dtype=torch.float64))
        for head in range(num_heads):
            label = int(labels_HN[head, view])
            sums["ce"] = sums["ce"] - softmax(teacher.logits[head][view], 1.0)[label].log()
            for branch in branches:
                sums["ce_branches"] = sums["ce_branches"] - softmax(branch.logits[head][view], 1.0)[label].log()
                target_logits, target_features = teacher.logits[head][view], teacher.features[view]
                if config.detach_teacher:
                    target_logits, target_features = target_logits.detach(), target_features.detach()
                target = softmax(target_logits, config.temperature)
                found = softmax(branch.logits[head][view], config.temperature)
                for p, q in zip(target, found, strict=True):
                    sums["kl"] = sums["kl"] + config.temperature**2 * p * (p.log() - q.log())
                if config.mse_of == "logits":
                    a, b = target_logits, branch.logits[head][view]
                else:
                    a, b = target_features, branch.features[view]
                a, b = a / sum(x * x for x in a) ** 0.5, b / sum(x * x for x in b) ** 0.5
                sums["mse"] = sums["mse"] + sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
        for name in TERMS:
            terms[name].append(sums[name] / num_heads)
    return terms


@pytest.mark.parametrize("num_classes", HEADS)
@pytest.mark.parametrize("mse_of", ["logits", "features"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("detach_teacher", [True, False], ids=["detached", "attached"])
def test_every_term_and_its_gradient_are_those_of_the_definition(
    detach_teacher: bool, temperature: float, mse_of: str, num_classes: tuple[int, ...]
) -> None:
    config = UnfusedConfig(detach_teacher=detach_teacher, temperature=temperature, mse_of=mse_of)
    teacher, *branches = exits(num_classes)
    labels_HN = labels_of(num_classes)
    ours = distillation_terms(teacher, branches, labels_HN, config)
    theirs = naive_terms(teacher, branches, labels_HN, config)
    assert set(ours) == set(TERMS)
    weights_N = torch.sin(torch.arange(NUM_VIEWS, dtype=torch.float64) + 1)
    for name in TERMS:
        expected = torch.stack(theirs[name])
        torch.testing.assert_close(ours[name], expected)
        inputs = leaves([teacher, *branches])
        torch.testing.assert_close(
            torch.autograd.grad((ours[name] * weights_N).sum(), inputs, materialize_grads=True, allow_unused=True),
            torch.autograd.grad((expected * weights_N).sum(), inputs, materialize_grads=True, allow_unused=True),
        )


@pytest.mark.parametrize("mse_of", ["logits", "features"])
def test_a_detached_teacher_is_not_pulled_towards_its_branches(mse_of: str) -> None:
    teacher, *branches = exits((4, 3))
    for detach, pulled in ((True, False), (False, True)):
        config = UnfusedConfig(detach_teacher=detach, mse_of=mse_of)
        terms = distillation_terms(teacher, branches, labels_of((4, 3)), config)
        gradients = torch.autograd.grad(
            (terms["kl"] + terms["mse"]).sum(), leaves([teacher]), materialize_grads=True, allow_unused=True
        )
        assert any(gradient.any() for gradient in gradients) == pulled


@settings(max_examples=40)
@given(seed=st.integers(0, 2**16), temperature=st.floats(0.5, 5), scale=st.floats(0.1, 10))
def test_divergences_vanish_at_the_teacher_and_the_mse_sees_directions_alone(
    seed: int, temperature: float, scale: float
) -> None:
    teacher, branch, *_ = exits((5,), seed)
    labels = labels_of((5,))
    config = UnfusedConfig(temperature=temperature)
    terms = distillation_terms(teacher, [branch], labels, config)
    assert (terms["kl"] >= 0).all()
    assert ((terms["mse"] >= 0) & (terms["mse"] <= 4)).all()
    same = distillation_terms(teacher, [teacher], labels, config)
    assert torch.equal(same["ce"], same["ce_branches"])
    assert same["kl"].abs().max() < 1e-12
    assert same["mse"].abs().max() < 1e-12
    scaled = Exit(branch.features, [scale * logits for logits in branch.logits])
    torch.testing.assert_close(distillation_terms(teacher, [scaled], labels, config)["mse"], terms["mse"])


NUM_MELS, NUM_FRAMES, BLOCK, NUM_CLASSES = 16, 16, 6, (4, 3)


def build(**fields: object) -> Unfused:
    torch.manual_seed(0)
    encoder = EncoderConfig(channels=4, width=12, dropout=0.0)
    return Unfused(UnfusedConfig(head_hidden=8, **fields), encoder, NUM_MELS, NUM_CLASSES)


def block(num_views: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Return views, weights and labels of a block."""
    views = torch.randn(num_views, BLOCK, NUM_MELS, NUM_FRAMES, generator=torch.Generator().manual_seed(2))
    return views, torch.ones(BLOCK), labels_of(NUM_CLASSES, BLOCK)


def gradients(method: Unfused, loss: Tensor) -> dict[str, Tensor]:
    found = torch.autograd.grad(loss, list(method.parameters()), materialize_grads=True, allow_unused=True)
    return dict(zip(dict(method.named_parameters()), found, strict=True))


def assert_equal_gradients(method: Unfused, loss: Tensor, expected: Tensor) -> None:
    """Compare whole gradients up to 1e-4: those of biases before batch norm are only rounding errors."""
    ours, theirs = (torch.cat([g.flatten() for g in gradients(method, x).values()]) for x in (loss, expected))
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()


def naive_loss(method: Unfused, views_VBFT: Tensor, weights_B: Tensor, labels_HB: Tensor) -> Tensor:
    """Sum the clips' losses by weight, each the mean over its views, from four exits computed one after another."""
    num_views, batch = views_VBFT.shape[:2]
    x, outputs = views_VBFT.flatten(0, 1).unsqueeze(1), []
    for convolution, head in zip(method.encoder.conv, method.branches, strict=True):
        x = convolution(x)
        outputs.append(Exit(*head(max_mean(flatten_bands(x)))))
    frames = torch.relu(method.encoder.fc2(torch.relu(method.encoder.fc1(flatten_bands(x)))))
    teacher = Exit(*method.teacher(max_mean(frames)))
    labels_HN = torch.stack([labels_HB[:, clip] for _ in range(num_views) for clip in range(batch)], dim=1)
    terms = naive_terms(teacher, outputs, labels_HN, method.config)
    alpha, beta = method.config.alpha, method.config.beta
    total = torch.zeros((), dtype=torch.float64)
    for view, clip in itertools.product(range(num_views), range(batch)):
        ce, ce_branches, kl, mse = (terms[name][view * batch + clip] for name in TERMS)
        total = total + weights_B[clip] / num_views * (ce + alpha * ce_branches + (1 - alpha) * kl + beta * mse)
    return total.float()


@pytest.mark.parametrize("num_views", [1, 2])
@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.0), (0.7, 0.003), (0.7, 5.0), (1.0, 0.5), (1.0, 0.0)])
def test_the_loss_of_a_block_and_all_its_gradients_are_those_of_the_definition(
    alpha: float, beta: float, num_views: int
) -> None:
    for detach in (True, False):
        method = build(alpha=alpha, beta=beta, num_views=num_views, detach_teacher=detach)
        views, weights, labels = block(num_views)
        ours, theirs = method(views, weights, labels).loss, naive_loss(method, views, weights, labels)
        torch.testing.assert_close(ours, theirs)
        assert_equal_gradients(method, ours, theirs)


def test_the_curves_get_the_terms_the_loss_is_made_of_without_gradient() -> None:
    method = build(alpha=0.25, beta=2.0)
    output = method(*block())
    terms = output.terms
    expected = terms["ce"] + 0.25 * terms["ce_branches"] + 0.75 * terms["kl"] + 2.0 * terms["mse"]
    torch.testing.assert_close(output.loss.detach(), expected)
    assert not any(term.requires_grad for term in terms.values())
    assert output.embeddings is None


def test_agreement_is_the_share_of_views_and_heads_where_the_teacher_finds_the_label() -> None:
    views, weights, labels_HB = block(num_views=2)
    method = build(num_views=2).eval()
    with torch.no_grad():
        agreement = method(views, weights, labels_HB).terms["agreement"]
        hits = [
            float(method.teacher(method.encoder(view[clip : clip + 1]))[1][head].argmax() == labels_HB[head, clip])
            for view in views
            for head, clip in itertools.product(range(len(NUM_CLASSES)), range(BLOCK))
        ]
    assert 0 < sum(hits) < len(hits)
    assert agreement.item() == pytest.approx(BLOCK * sum(hits) / len(hits))


@pytest.mark.parametrize("how", ["weight 0", "label -1", "label -1 in one head"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_a_clip_that_does_not_count_adds_neither_loss_nor_gradient(training: bool, how: str) -> None:
    """In training batch norm still sees the clip; in evaluation the block is as if without it."""
    views, weights, labels = block(num_views=2)
    method = build(alpha=0.4, beta=1.0, num_views=2).train(training)
    others = torch.arange(BLOCK) != 2
    if training:
        expected = naive_loss(method, views, others.float(), labels)
    else:
        expected = method(views[:, others], weights[others], labels[:, others]).loss
    if how == "weight 0":
        weights[2] = 0
    else:
        labels[slice(None) if how == "label -1" else 1, 2] = -1
    loss = method(views, weights, labels).loss
    torch.testing.assert_close(loss, expected)
    assert_equal_gradients(method, loss, expected)


def test_a_block_in_which_no_clip_counts_has_a_loss_and_gradients_of_zero() -> None:
    views, weights, labels = block()
    method = build()
    output = method(views, weights, torch.full_like(labels, -1))
    assert output.loss == 0
    assert all(term == 0 for term in output.terms.values())
    assert not any(gradient.any() for gradient in gradients(method, output.loss).values())


def test_beyond_the_branches_a_detached_network_learns_from_its_own_labels_alone() -> None:
    """The teacher's head and both layers per frame get only its cross entropy's gradient, for any alpha and beta."""

    def beyond(detach: bool, alpha: float, beta: float) -> list[Tensor]:
        method = build(detach_teacher=detach, alpha=alpha, beta=beta)
        found = gradients(method, method(*block()).loss)
        return [found[name] for name in sorted(found) if name.startswith(("teacher.", "encoder.fc"))]

    alone = beyond(True, alpha=1.0, beta=0.0)
    torch.testing.assert_close(beyond(True, alpha=0.0, beta=5.0), alone)
    attached = beyond(False, alpha=0.0, beta=5.0)
    assert not torch.allclose(torch.cat([g.flatten() for g in attached]), torch.cat([g.flatten() for g in alone]))


def test_the_student_is_the_network_up_to_the_cut() -> None:
    assert build().export_cut == "fc1"
    assert build(cut="block2").export_cut == "block2"
