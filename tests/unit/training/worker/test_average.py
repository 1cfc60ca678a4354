"""The average of weights equals torch's AveragedModel with a growing decay, bit for bit, and survives files."""

from __future__ import annotations

import safetensors.torch
import torch
from torch.optim.swa_utils import AveragedModel

from unfused_ray.config import EncoderConfig
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.training.worker.average import WeightAverage

DECAY = 0.6


def network() -> AudioNTT2020:
    torch.manual_seed(0)
    return AudioNTT2020(EncoderConfig(channels=4, width=16), num_mels=16)


def changed(encoder: AudioNTT2020, step: int) -> None:
    """Change weights and running statistics, as a step would."""
    generator = torch.Generator().manual_seed(step)
    for tensor in encoder.state_dict().values():
        tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.1)


def ramped(averaged: torch.Tensor, current: torch.Tensor, num_averaged: torch.Tensor) -> torch.Tensor:
    kept = ((1 + num_averaged) / (10 + num_averaged)).clamp_max(DECAY).to(averaged.dtype)
    return averaged.lerp(current, 1 - kept)


def test_every_update_is_that_of_torchs_averaged_model() -> None:
    online = network()
    ours, torchs = WeightAverage(online, DECAY), AveragedModel(online, avg_fn=ramped, use_buffers=True)
    for step in range(25):  # the decay stops growing after 15
        changed(online, step)
        ours.update(online)
        torchs.update_parameters(online)
        expected = torchs.state_dict()
        assert ours.state_dict().keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in ours.state_dict().items())


def test_an_average_goes_on_from_files_as_if_it_had_not_been_saved() -> None:
    online = network()
    whole, restored = WeightAverage(online, DECAY), WeightAverage(network(), DECAY)
    for step in range(6):
        changed(online, step)
        whole.update(online)
        if step == 2:
            restored.load_state_dict(safetensors.torch.load(safetensors.torch.save(whole.state_dict())))
        elif step > 2:
            restored.update(online)
    assert all(map(torch.equal, whole.state_dict().values(), restored.state_dict().values()))
