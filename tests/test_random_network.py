"""A network that was never trained: its weights follow from the seed, its batch norms from the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sources import tone, write_source

from unfused_ray.audio.crop import fit_short_clip
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import CropConfig, EncoderConfig, FrontEndConfig
from unfused_ray.data.shards import ClipIndex
from unfused_ray.embedding.random_network import random_encoder
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.models.export import FrozenEncoder

CONFIG = EncoderConfig(channels=4, width=12)
FRONT_END = FrontEndConfig()
CROP = CropConfig(seconds=0.31, short_clips="tile")
LENGTHS = (4_000, 9_000, 20_000)
NUM_CLIPS = 40  # less than a block of 64: all clips are normalised together


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ClipIndex:
    return ClipIndex([write_source(tmp_path_factory.mktemp("source"), [[25], [15]], LENGTHS)])


def build(index: ClipIndex, seed: int = 3) -> FrozenEncoder:
    statistics = index.statistics(FRONT_END)
    assert statistics is not None
    return random_encoder(CONFIG, FRONT_END, CROP, index, statistics, seed)


def test_batch_norms_have_the_statistics_of_all_clips(index: ClipIndex) -> None:
    calibrated = build(index)
    samples, waves = CROP.num_samples(16_000), []
    for clip in range(NUM_CLIPS):
        wave = tone(clip, LENGTHS[clip % 3])
        start = (max(len(wave) - samples, 0) + 1) // 2
        short = len(wave) <= samples
        waves.append(fit_short_clip(wave, samples, "tile") if short else wave[start : start + samples])
    statistics = index.statistics(FRONT_END)
    log_mel = LogMel(FRONT_END, statistics.mean, statistics.std)(torch.from_numpy(np.stack(waves)))
    x = log_mel.double()[:, None]
    for convolution, norm, pool, relu in calibrated.encoder.conv.double():
        x = convolution(x)
        values = x.transpose(0, 1).flatten(1)
        mean, variance = values.mean(1), values.var(1, correction=1)
        torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var, variance, rtol=1e-4, atol=1e-5)
        shape = (1, -1, 1, 1)
        x = relu(pool((x - mean.view(shape)) / (variance.view(shape) + norm.eps).sqrt()))


def test_weights_are_those_of_a_new_encoder_of_that_seed_and_torchs_own_generator_stays_as_it_was(
    index: ClipIndex,
) -> None:
    torch.manual_seed(3)
    drawn = dict(AudioNTT2020(CONFIG, 64).named_parameters())
    before = torch.get_rng_state()
    state, again, other = (build(index, seed).encoder.state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(state[name], value) for name, value in drawn.items())
    assert all(torch.equal(state[name], again[name]) for name in state)
    assert not torch.equal(state["fc1.weight"], other["fc1.weight"])


def test_it_is_frozen_and_says_what_it_is(index: ClipIndex) -> None:
    encoder = build(index)
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert encoder.details == {"method": "random", "seed": 3}
    assert encoder.embed(tone(0, 9_000), 16_000).shape == (1, 12)
