"""Log-mels, views and embeddings on any device equal those in float64 within 1e-4."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from unfused_ray.audio import randomness
from unfused_ray.audio.augment import augment
from unfused_ray.audio.crop import complete
from unfused_ray.audio.log_mel import LogMel, mel_filters
from unfused_ray.audio.views import Views
from unfused_ray.config import AugmentConfig, CropConfig, EncoderConfig, FrontEndConfig
from unfused_ray.embedding.waves import embed_waves
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.models.frozen import FrozenEncoder

WITHIN = 1e-4
FRONT_END = FrontEndConfig()
MEAN, STD = -5.0, 4.0


def waves(num_clips: int, num_samples: int) -> np.ndarray:
    """Return noise and tones of all loudnesses, and a silent last clip: (num_clips, num_samples) int16."""
    rng, time = np.random.default_rng(0), np.arange(num_samples)
    loudness = 10 ** rng.uniform(0, 4.2, (num_clips, 1))
    tones = np.sin(rng.uniform(0.01, 2, (num_clips, 1)) * time)
    sounds = loudness * (rng.uniform(-1, 1, (num_clips, num_samples)) + tones) / 2
    sounds[-1] = 0
    return np.rint(sounds).astype(np.int16)


def exact_log_mels(given: np.ndarray) -> torch.Tensor:
    """Compute normalised log-mels in float64, frame by frame: (B, samples) int16 → (B, num_mels, frames)."""
    half, hop = FRONT_END.n_fft // 2, FRONT_END.hop
    padded = np.pad(given / 2.0**15, ((0, 0), (half, half)), mode="reflect")
    starts = range(0, given.shape[1] + 1, hop)
    window = np.sin(np.pi * np.arange(FRONT_END.n_fft) / FRONT_END.n_fft) ** 2
    spectra = np.stack([np.fft.rfft(padded[:, start : start + FRONT_END.n_fft] * window) for start in starts], axis=2)
    powers = np.einsum("fm,bft->bmt", mel_filters(FRONT_END).double().numpy(), np.abs(spectra) ** 2)
    return torch.from_numpy((np.log(np.maximum(powers, FRONT_END.floor)) - MEAN) / STD)


def test_log_mels(device: torch.device) -> None:
    given = waves(16, 15_200)
    found = LogMel(FRONT_END, MEAN, STD).to(device)(torch.from_numpy(given).to(device)).cpu()
    assert torch.allclose(found.double(), exact_log_mels(given), rtol=0, atol=WITHIN)


@pytest.mark.parametrize("config", [AugmentConfig(), AugmentConfig(fader=1.0)], ids=["usual", "fader"])
def test_views(config: AugmentConfig, device: torch.device) -> None:
    given = waves(16, 15_200)
    rngs = [randomness.generator(1, "augment", 3, 7, view) for view in range(2)]
    expected = augment([exact_log_mels(given).float()] * 2, config, rngs)  # on a processor
    views = Views(FRONT_END, config, MEAN, STD, seed=1, num_views=2).to(device)
    found = views(torch.from_numpy(given)[:, None].to(device), epoch=3, block=7).cpu()
    assert torch.isfinite(found).all()
    assert torch.allclose(found, expected, rtol=0, atol=WITHIN)


def test_vectors_of_waves_of_several_lengths(device: torch.device) -> None:
    torch.manual_seed(0)
    network, crop = AudioNTT2020(EncoderConfig(channels=16, width=64), FRONT_END.num_mels), CropConfig()
    exact = copy.deepcopy(network).double().eval()
    lengths = [9_000, 15_200, 40_000, 15_200, 160_000] * 4
    given = [(number, waves(2, length)[0]) for number, length in enumerate(lengths)]
    frozen = FrozenEncoder(network, LogMel(FRONT_END, MEAN, STD), crop).to(device)
    found = {}
    for numbers, layers in embed_waves(frozen, given):
        found |= {(layer, number): rows[at] for layer, rows in layers.items() for at, number in enumerate(numbers)}
    shortest = crop.num_samples(FRONT_END.sample_rate)
    for number, wave in given:
        whole = complete(wave, shortest, crop.short_clips)
        for layer, expected in exact.layers(exact_log_mels(whole[None])).items():
            vector = expected[0].detach().numpy()
            assert np.abs(found[layer, number] - vector).max() <= WITHIN * np.abs(vector).max(), (layer, number)
