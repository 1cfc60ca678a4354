"""The heads equal plain references."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from unfused_ray.models.heads import ClassifierHead, ProjectionHead, perceptron


def test_projections_and_gradients_equal_the_reference():
    torch.manual_seed(0)
    head = ProjectionHead(10, 7, 4)
    x = torch.randn(8, 10, requires_grad=True)
    first, norm, _, last = head.layers
    z = x @ first.weight.T
    z = (z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt() * norm.weight + norm.bias
    z = z.clamp_min(0) @ last.weight.T + last.bias
    expected = z / z.square().sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(head(x), expected)
    weights = torch.sin(torch.arange(32.0)).reshape(8, 4)
    inputs = [x, *head.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad((head(x) * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), inputs),
        rtol=1e-4,
        atol=1e-5,
    )


def test_weights_of_a_perceptron_have_the_names_that_saved_runs_know():
    names = ["0.weight", "1.weight", "1.bias", "3.weight", "3.bias"]
    assert [name for name, _ in perceptron(6, 4, 2).named_parameters()] == names
    assert [name for name, _ in ProjectionHead(6, 4, 2).named_parameters()] == [f"layers.{name}" for name in names]


def test_projections_have_unit_length_under_autocast_too():
    head = ProjectionHead(10, 7, 4)
    with torch.autocast("cpu", torch.bfloat16):
        z = head(torch.randn(8, 10))
    assert z.dtype == torch.float32
    torch.testing.assert_close(z.norm(dim=1), torch.ones(8))


def test_a_zero_vector_stays_finite():
    head = ProjectionHead(3, 2, 2).eval()
    torch.nn.init.zeros_(head.layers[3].bias)
    assert torch.equal(head(torch.zeros(1, 3)), F.normalize(torch.zeros(1, 2)))


def test_a_classifiers_features_logits_and_gradients_equal_the_reference():
    torch.manual_seed(0)
    head = ClassifierHead(10, 7, (4, 3))
    x = torch.randn(8, 10, requires_grad=True)
    first, norm, _ = head.layers
    z = x @ first.weight.T
    z = (z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt() * norm.weight + norm.bias
    expected = [z.clamp_min(0)]
    expected += [expected[0] @ layer.weight.T + layer.bias for layer in head.logits]
    features, logits = head(x)
    found = [features, *logits]
    assert [tuple(output.shape) for output in found] == [(8, 7), (8, 4), (8, 3)]
    torch.testing.assert_close(found, expected)
    inputs = [x, *head.parameters()]

    def gradients(outputs):
        weighted = [(output * torch.sin(torch.arange(1.0, output.numel() + 1)).view_as(output)) for output in outputs]
        return torch.autograd.grad(sum(output.sum() for output in weighted), inputs)

    torch.testing.assert_close(gradients(found), gradients(expected), rtol=1e-4, atol=1e-5)


def test_a_classifier_gives_float32_under_autocast_too():
    with torch.autocast("cpu", torch.bfloat16):
        features, logits = ClassifierHead(10, 7, (4, 3))(torch.randn(8, 10))
    assert {output.dtype for output in (features, *logits)} == {torch.float32}
