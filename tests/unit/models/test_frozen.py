"""Vectors over time belong to the times given with them; the interface has what evaluation kits need."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import CropConfig, Cut, EncoderConfig, FrontEndConfig
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.models.frozen import FrozenEncoder

RATE = 16_000


def encoder(cut: Cut = "fc1", **crop: str) -> FrozenEncoder:
    torch.manual_seed(0)
    network = AudioNTT2020(EncoderConfig(channels=4, width=12, cut=cut), 16)
    return FrozenEncoder(network, LogMel(FrontEndConfig(num_mels=16), -7.0, 4.0), CropConfig(**crop))


def click(milliseconds: float, seconds: float = 2.0) -> np.ndarray:
    """Return silence with a short noise around a moment."""
    wave = np.zeros(int(seconds * RATE), np.float32)
    centre = int(milliseconds * RATE / 1000)
    wave[centre - 40 : centre + 40] = np.random.default_rng(0).uniform(-0.9, 0.9, 80)
    return wave


def loudest(model: FrozenEncoder, wave: np.ndarray, **options: bool) -> float:
    """Return the time, in ms, of the vector that differs most from silence's."""
    frames, silence = (model.frames(each, RATE, **options) for each in (wave, np.zeros_like(wave)))
    return float(frames.times[(frames.vectors - silence.vectors).norm(dim=2)[0].argmax()])


@pytest.mark.parametrize("milliseconds", [200, 235, 275, 500, 515, 1_001, 1_730])
def test_a_vector_hears_what_is_at_its_time(milliseconds):
    model, wave = encoder(), click(milliseconds)
    assert abs(loudest(model, wave) - milliseconds) <= 40 + 10
    assert abs(loudest(model, wave, half_hop=True) - milliseconds) <= 20 + 10


@pytest.mark.parametrize(("cut", "hop"), [("block1", 20), ("block2", 40), ("fc2", 80)])
def test_times_are_the_centres_of_the_frames_that_a_vector_is_pooled_from(cut, hop):
    times = encoder(cut).frames(click(500), RATE).times
    assert times.tolist() == [hop * number + (hop - 10) / 2 for number in range(201 * 10 // hop)]


@pytest.mark.parametrize("num_samples", [15_200, 16_000, 16_639, 16_640, 17_279, 32_000])
def test_half_a_hop_gives_the_same_vectors_and_those_between(num_samples):
    model, wave = encoder(), np.random.default_rng(1).uniform(-0.5, 0.5, (2, num_samples)).astype(np.float32)
    whole, half = model.frames(wave, RATE), model.frames(wave, RATE, half_hop=True)
    assert (half.times.diff() == 40).all()
    torch.testing.assert_close(half.vectors[:, ::2], whole.vectors)
    later = model.frames(wave[:, 640:], RATE)  # half a hop later; vectors at both ends differ
    torch.testing.assert_close(half.vectors[:, 5:-4:2], later.vectors[:, 2 : 2 + half.vectors[:, 5:-4:2].shape[1]])


def test_the_end_is_covered_where_it_is_asked_for():
    model = encoder()
    wave = click(1_060, seconds=1.07)
    short, covered = model.frames(wave, RATE), model.frames(wave, RATE, cover_end=True)
    assert short.times[-1] + 45 < 1_060 < covered.times[-1] + 45
    assert covered.vectors.shape[1] == short.vectors.shape[1] + 1
    assert abs(loudest(model, wave, cover_end=True) - 1_060) <= 50
    whole = model.frames(np.zeros(1_280 * 12 - 160, np.float32), RATE)  # 96 frames: no rest
    assert torch.equal(whole.times, model.frames(np.zeros(1_280 * 12 - 160), RATE, cover_end=True).times)


@pytest.mark.parametrize(("rule", "first"), [("tile", 35), ("centre", 35 - 225)])
def test_times_are_of_the_clip_as_it_was_given(rule, first):
    assert encoder(short_clips=rule).frames(np.ones(8_000), RATE).times[0] == first


@pytest.mark.parametrize("cut", ["block1", "block3", "fc1"])
def test_the_first_time_and_the_step_are_said_beforehand(cut):
    model = encoder(cut)
    times = model.frames(click(500), RATE).times
    assert (model.frame_first_ms, model.frame_hop_ms) == (times[0], times[1] - times[0])
    half = model.frames(click(500), RATE, half_hop=True).times
    assert half[1] - half[0] == model.frame_hop_ms / 2


def test_kits_find_what_they_ask_for():
    model, wave = encoder(), torch.rand(2, RATE) - 0.5
    assert (model.sampling_rate, model.output_dim, model.shortest) == (RATE, 12, 15_200)
    assert torch.equal(model(wave), model.embed(wave, RATE))


def test_it_stays_frozen_as_a_part_of_a_module_that_is_trained():
    model, wave = encoder("fc2"), torch.rand(2, RATE) - 0.5
    expected = model(wave)
    torch.nn.Sequential(model, torch.nn.Linear(12, 2)).train()
    assert torch.equal(model(wave), expected)
    torch.testing.assert_close(model(wave[:1]), expected[:1])
