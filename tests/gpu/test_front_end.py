"""Log-mels, views and embeddings of a GPU are a processor's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unfused_ray.audio.log_mel import LogMel
from unfused_ray.audio.views import Views
from unfused_ray.config import AugmentConfig, CropConfig, EncoderConfig, FrontEndConfig
from unfused_ray.embedding.waves import embed_waves
from unfused_ray.models.encoder import LAYERS, AudioNTT2020
from unfused_ray.models.frozen import FrozenEncoder

WITHIN = 1e-4
FRONT_END = FrontEndConfig()


def waves(num_clips: int, num_samples: int) -> np.ndarray:
    """Noise of all loudnesses, tones, and a clip of silence: (num_clips, num_samples) int16."""
    rng, time = np.random.default_rng(0), np.arange(num_samples)
    loudness = 10 ** rng.uniform(0, 4.2, (num_clips, 1))
    tones = np.sin(rng.uniform(0.01, 2, (num_clips, 1)) * time)
    sounds = loudness * (rng.uniform(-1, 1, (num_clips, num_samples)) + tones) / 2
    sounds[-1] = 0
    return np.rint(sounds).astype(np.int16)


def test_log_mels(device: torch.device) -> None:
    given = torch.from_numpy(waves(16, 15_200))
    expected = LogMel(FRONT_END, -5.0, 4.0)(given)
    found = LogMel(FRONT_END, -5.0, 4.0).to(device)(given.to(device)).cpu()
    assert torch.allclose(found, expected, rtol=0, atol=WITHIN)


@pytest.mark.parametrize("config", [AugmentConfig(), AugmentConfig(fader=1.0)], ids=["usual", "fader"])
def test_views(config: AugmentConfig, device: torch.device) -> None:
    given = torch.from_numpy(waves(16, 15_200))[:, None]
    expected, found = (
        Views(FRONT_END, config, -5.0, 4.0, seed=1, num_views=2).to(on)(given.to(on), epoch=3, block=7).cpu()
        for on in (torch.device("cpu"), device)
    )
    assert torch.isfinite(found).all()
    assert torch.allclose(found, expected, rtol=0, atol=WITHIN)


def test_vectors_of_waves_of_several_lengths(device: torch.device) -> None:
    torch.manual_seed(0)
    network = AudioNTT2020(EncoderConfig(channels=16, width=64), FRONT_END.num_mels)
    lengths = [9_000, 15_200, 40_000, 15_200, 160_000] * 4
    given = [(number, waves(2, length)[0]) for number, length in enumerate(lengths)]

    def vectors(on: torch.device) -> dict[str, np.ndarray]:
        found = {}
        for numbers, layers in embed_waves(
            FrozenEncoder(network, LogMel(FRONT_END, -5.0, 4.0), CropConfig()).to(on), given
        ):
            found |= {(layer, number): rows[at] for layer, rows in layers.items() for at, number in enumerate(numbers)}
        return {layer: np.stack([found[layer, number] for number, _ in given]) for layer in LAYERS}

    expected, found = vectors(torch.device("cpu")), vectors(device)
    for layer in LAYERS:
        scale = np.abs(expected[layer]).max()
        assert np.abs(found[layer] - expected[layer]).max() <= WITHIN * scale, layer
