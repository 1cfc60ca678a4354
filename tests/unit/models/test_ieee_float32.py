"""``ieee_float32`` makes a GPU compute in IEEE float32 and restores torch's settings afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import CropConfig, EncoderConfig, FrontEndConfig
from unfused_ray.embedding.waves import embed_waves
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.models.frozen import FrozenEncoder
from unfused_ray.models.precision import ieee_float32

OPERATIONS = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)


def precisions() -> list[str]:
    return [operation.fp32_precision for operation in OPERATIONS]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = precisions()
    yield
    assert precisions() == before
    assert torch.backends.cudnn.allow_tf32, "the older names can be asked for again"
    assert not torch.backends.cuda.matmul.allow_tf32


def test_within_the_block_products_are_exact_and_after_an_error_as_before() -> None:
    with pytest.raises(ZeroDivisionError), ieee_float32():
        assert precisions() == ["ieee", "ieee"]
        raise ZeroDivisionError


def test_waves_are_embedded_so() -> None:
    found = []

    class Telling(AudioNTT2020):
        def blocks(self, log_mel: torch.Tensor) -> tuple[torch.Tensor, ...]:
            found.append(precisions())
            return super().blocks(log_mel)

    network = Telling(EncoderConfig(channels=4, width=16), 64)
    encoder = FrozenEncoder(network, LogMel(FrontEndConfig()), CropConfig(seconds=0.2))
    for _ in embed_waves(encoder, [(0, np.ones(3_200, np.int16)), (1, np.ones(4_800, np.int16))]):
        assert precisions() != ["ieee", "ieee"], "whoever takes the batches computes as it did"
    assert found == [["ieee", "ieee"]] * 2
