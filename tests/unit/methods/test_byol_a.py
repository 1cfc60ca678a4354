"""BYOL-A equals a reference written with loops; only the online network is trained, and the target follows it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from unfused_ray.config import ByolAConfig, EncoderConfig
from unfused_ray.methods.byol_a import ByolA, normalize_views, prediction_loss
from unfused_ray.models.batch_norm import BlockBatchNorm

NO_LABELS = torch.empty(0, 6, dtype=torch.int64)


@pytest.fixture
def method() -> ByolA:
    torch.manual_seed(0)
    config = ByolAConfig(hidden=12, projection_dim=5, ema_decay=0.9)
    method = ByolA(config, EncoderConfig(channels=4, width=8, dropout=0.0), num_mels=16).double().train()
    with torch.no_grad():  # as after some steps: target and online network differ
        for parameter in method.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return method


def _views(num_clips: int = 6) -> torch.Tensor:
    return torch.randn(2, num_clips, 16, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 + 1


def _reference_loss(method: ByolA, views: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Compute the loss view by view and clip by clip, from normalised views through both networks."""
    kept = torch.cat([views[0][weights > 0], views[1][weights > 0]])
    clips = list((views - kept.mean()) / kept.std(correction=0))
    online = method.projector(method.encoder(torch.cat(clips)))
    predictions = method.predictor(online).chunk(2)
    targets = method.target_projector(method.target_encoder(torch.cat(clips))).detach().chunk(2)
    total = torch.zeros((), dtype=torch.float64)
    for clip, weight in enumerate(weights):
        for view in range(2):
            prediction, target = predictions[view][clip], targets[1 - view][clip]
            total = total + weight * (2 - 2 * (prediction @ target) / (prediction.norm() * target.norm()))
    return total


@pytest.mark.parametrize("weights", [[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 1]])
def test_loss_and_gradient_are_those_of_the_reference(method: ByolA, weights: list[float]):
    weights_B = torch.tensor(weights, dtype=torch.float64)
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    ours = method(_views(), weights_B, NO_LABELS).loss
    expected = _reference_loss(method, _views(), weights_B)
    close = {"rtol": 1e-4, "atol": 1e-5}  # the loss is always float32
    torch.testing.assert_close(ours, expected, check_dtype=False, **close)
    torch.testing.assert_close(torch.autograd.grad(ours, trained), torch.autograd.grad(expected, trained), **close)


def test_the_loss_of_a_clip_is_zero_where_predictions_point_to_the_other_views_target():
    targets = F.normalize(torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)), dim=2)
    torch.testing.assert_close(prediction_loss(3 * targets.flip(0), targets), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(prediction_loss(-targets.flip(0), targets), torch.full((3,), 8.0))


def test_no_gradient_reaches_the_target_whose_weights_the_optimizer_does_not_see(method: ByolA):
    method(_views(), torch.ones(6, dtype=torch.float64), NO_LABELS).loss.backward()
    for name, parameter in method.named_parameters():
        assert parameter.requires_grad == (not name.startswith("target_"))
        assert (parameter.grad is not None) == parameter.requires_grad


def test_after_a_step_the_target_has_moved_a_tenth_of_the_way_and_the_online_network_not(method: ByolA):
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    method.after_step({})
    pairs = {"target_encoder.": "encoder.", "target_projector.": "projector."}
    moved = {prefix + name for prefix in pairs for name, _ in method.get_submodule(prefix[:-1]).named_parameters()}
    for name, tensor in method.state_dict().items():
        expected = before[name]
        if name in moved:
            prefix = next(prefix for prefix in pairs if name.startswith(prefix))
            expected = 0.9 * expected + 0.1 * before[pairs[prefix] + name.removeprefix(prefix)]
        torch.testing.assert_close(tensor, expected)
    assert moved


def test_batch_norm_of_the_target_sees_the_block_and_keeps_no_trace_of_it(method: ByolA):
    method(_views(), torch.ones(6, dtype=torch.float64), NO_LABELS)
    for name, norm in method.named_modules():
        if isinstance(norm, BlockBatchNorm):
            assert norm.pending.any() == (not name.startswith("target_"))


def test_a_clip_without_weight_does_not_shift_the_others():
    views, weights = _views(), torch.tensor([1.0, 1, 1, 1, 1, 0], dtype=torch.float64)
    louder = views.clone()
    louder[:, 5] += 100
    normal = normalize_views(views, weights)
    torch.testing.assert_close(normalize_views(louder, weights)[:, :5], normal[:, :5])
    assert normal[:, :5].mean().abs() < 1e-12
    torch.testing.assert_close(normal[:, :5].std(correction=0), torch.ones((), dtype=torch.float64))


def test_views_are_of_zero_mean_and_unit_variance_under_autocast_too():
    views = torch.rand(2, 6, 16, 24, generator=torch.Generator().manual_seed(0)) * 4 - 11
    with torch.autocast("cpu", dtype=torch.bfloat16):
        normal = normalize_views(views, torch.ones(6))
    assert normal.dtype == torch.float32
    assert normal.mean().abs() < 1e-5
    torch.testing.assert_close(normal.std(correction=0), torch.tensor(1.0), atol=1e-4, rtol=0)


def test_a_block_that_is_damaged_altogether_is_finite(method: ByolA):
    output = method(
        torch.full((2, 6, 16, 24), -9.0, dtype=torch.float64), torch.zeros(6, dtype=torch.float64), NO_LABELS
    )
    output.loss.backward()
    assert output.loss == 0
    assert all(parameter.grad.isfinite().all() for parameter in method.parameters() if parameter.requires_grad)
