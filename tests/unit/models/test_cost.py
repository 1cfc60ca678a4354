"""The cost of an encoder equals a table older than this project, a count by hand and torch's counter."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from unfused_ray.config import EncoderConfig, FrontEndConfig
from unfused_ray.models.cost import REFERENCE_PARAMETERS, cost_of, multiply_adds, num_parameters, refuse_large_student
from unfused_ray.models.encoder import LAYERS, AudioNTT2020

PARAMETERS = {"block1": 768, "block2": 37_824, "block3": 74_880, "fc1": 1_125_504, "fc2": 5_321_856}


def parameters_of(**fields: object) -> int:
    return cost_of(EncoderConfig(**fields), FrontEndConfig())[0]


@pytest.mark.parametrize(("cut", "parameters"), PARAMETERS.items())
def test_parameters_of_every_cut_are_those_of_the_method(cut: str, parameters: int) -> None:
    assert parameters_of(cut=cut) == parameters


def test_the_reference_is_the_whole_network_and_a_narrow_one_has_69_percent_fewer() -> None:
    assert parameters_of() == REFERENCE_PARAMETERS
    assert parameters_of(width=1024) == 1_649_792
    assert round(1 - 1_649_792 / REFERENCE_PARAMETERS, 3) == 0.69


def by_hand(config: EncoderConfig, front_end: FrontEndConfig, seconds: int) -> float:
    """Count multiply–adds a second, layer by layer: one for each input of each output value."""
    bands, frames, channels = front_end.num_mels, front_end.num_frames(seconds * front_end.sample_rate), 1
    layers = LAYERS[: LAYERS.index(config.cut) + 1]
    total = 0
    for layer in layers:
        if layer.startswith("block"):
            total += config.channels * bands * frames * (9 * channels)
            channels, bands, frames = config.channels, bands // 2, frames // 2
        else:
            inputs = channels * bands if layer == "fc1" else config.width
            total += frames * config.width * inputs
    return total / seconds


@pytest.mark.parametrize("cut", LAYERS)
def test_multiply_adds_are_those_of_a_count_by_hand(cut: str) -> None:
    front_end = FrontEndConfig(num_mels=16)
    config = EncoderConfig(channels=4, width=12, cut=cut)
    encoder = AudioNTT2020(config, num_mels=16).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    assert multiply_adds(encoder, front_end) == by_hand(config, front_end, seconds=10)
    assert cost_of(config, front_end) == (num_parameters(encoder), multiply_adds(encoder, front_end))
    assert encoder.training
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_multiply_adds_are_those_of_pytorchs_own_counter() -> None:
    encoder, front_end = AudioNTT2020(EncoderConfig(), num_mels=64).eval(), FrontEndConfig()
    with FlopCounterMode(display=False) as counter:
        encoder(torch.zeros(1, 64, front_end.num_frames(10 * front_end.sample_rate)))
    assert multiply_adds(encoder, front_end) == counter.get_total_flops() / 2 / 10


def test_multiply_adds_of_the_encoder_are_the_methods() -> None:
    """The method takes 0.27 GFLOP forward for a crop of 0.95 s, counting two for each multiply–add."""
    per_second = multiply_adds(AudioNTT2020(EncoderConfig(), num_mels=64), FrontEndConfig())
    assert 2 * 0.95 * per_second / 1e9 == pytest.approx(0.27, abs=0.01)


@pytest.mark.parametrize("fields", [{"cut": "fc1"}, {"cut": "block1"}, {"width": 1024}, {"cut": "fc1", "width": 4096}])
def test_students_may_have_60_percent_of_the_parameters(fields: dict[str, object]) -> None:
    refuse_large_student(parameters_of(**fields), "fc2", "here")


def test_the_largest_student_has_3_193_113_parameters() -> None:
    refuse_large_student(3_193_113, "fc2", "here")
    with pytest.raises(ValueError, match=r"here: the network up to fc2 has 3,193,114 .* a student at most 3,193,113"):
        refuse_large_student(3_193_114, "fc2", "here")
