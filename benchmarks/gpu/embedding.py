"""Embedding of whole clips by the paper's network: clips/s of one process, with the clips in host memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.gpu.timing import seconds
from benchmarks.measure import Figure, figure
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import CropConfig, Cut, EncoderConfig, FrontEndConfig
from unfused_ray.embedding.waves import embed_waves
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.models.frozen import FrozenEncoder


def measure(device: torch.device, small: bool) -> list[Figure]:
    """Measure the rates for clips of 1 and 10 seconds, and how far the vectors are from a processor's."""
    config = EncoderConfig(channels=8, width=32) if small else EncoderConfig()
    torch.manual_seed(0)
    network, front_end = AudioNTT2020(config, 64), FrontEndConfig()

    def encoder(on: torch.device) -> FrozenEncoder:
        return FrozenEncoder(network, LogMel(front_end, -5.0, 4.0), CropConfig()).to(on)

    rng, figures = np.random.default_rng(0), []
    for length, num_clips in ((1, 16), (10, 4)) if small else ((1, 8192), (10, 1024)):
        waves = rng.integers(-9_000, 9_000, (num_clips, length * front_end.sample_rate), np.int16)
        frozen = encoder(device)

        def embed(waves: np.ndarray = waves, frozen: FrozenEncoder = frozen) -> None:
            for _ in embed_waves(frozen, enumerate(waves)):
                pass

        rates = [num_clips / taken for taken in seconds(embed, device, rounds=3)]
        figures.append(figure(f"clips of {length} s", rates, "clips/s"))
    places = [encoder(on) for on in (device, torch.device("cpu"))]
    found, expected = (dict(_vectors(place, waves)) for place in places)
    furthest = max(np.abs(found[key] - expected[key]).max() / np.abs(expected[key]).max() for key in expected)
    name = "largest difference from a processor's vector, relative"
    return [*figures, Figure(name, float(furthest), "", reach="≤ 0.0001")]


def _vectors(encoder: FrozenEncoder, waves: np.ndarray) -> Iterator[tuple[tuple[int, Cut], np.ndarray]]:
    """Yield the vectors of the first four waves, by wave and layer."""
    for numbers, layers in embed_waves(encoder, enumerate(waves[:4])):
        for layer, rows in layers.items():
            yield from (((number, layer), row) for number, row in zip(numbers, rows, strict=True))
