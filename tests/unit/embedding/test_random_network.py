"""A network that was never trained has weights from the seed and batch norms calibrated on the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.sources import tone, write_source

from unfused_ray.audio.crop import complete
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import BatchConfig, CropConfig, EncoderConfig, FrontEndConfig
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.data.stream.plan import Pass, Planner
from unfused_ray.data.stream.prefetch import LocalSource
from unfused_ray.data.stream.read import BlockReader
from unfused_ray.embedding.random_network import random_encoder
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.models.frozen import FrozenEncoder

CONFIG = EncoderConfig(channels=4, width=12)
FRONT_END = FrontEndConfig()
CROP = CropConfig(seconds=0.31, short_clips="tile")
LENGTHS = (4_000, 9_000, 20_000)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ClipIndex:
    return ClipIndex([write_source(tmp_path_factory.mktemp("source"), [[25], [15]], LENGTHS)])


def waves_of(clip_ids: np.ndarray) -> np.ndarray:
    """Return the middle crop of each clip; short clips are completed."""
    samples, waves = CROP.num_samples(16_000), []
    for clip in clip_ids.tolist():
        wave = tone(clip, LENGTHS[clip % 3])
        start = (max(len(wave) - samples, 0) + 1) // 2
        waves.append(complete(wave[start : start + samples], samples, "tile"))
    return np.stack(waves)


def build(index: ClipIndex, seed: int = 3) -> FrozenEncoder:
    statistics = index.statistics(FRONT_END)
    assert statistics is not None
    return random_encoder(CONFIG, FRONT_END, CROP, index, statistics, seed)


def blocks_of(index: ClipIndex, block: int) -> list[np.ndarray]:
    """Return the clips of each block of the pass, in the plan's order."""
    planner = Planner(index, 0, BatchConfig(block=block, blocks_per_step=1))
    source = LocalSource(planner, BlockReader(0, block, CROP, CROP.num_samples(16_000)))
    return [read.clip_ids[read.clip_ids >= 0] for read in source.blocks(Pass("embed", 0))]


@pytest.mark.parametrize(
    ("row_groups", "blocks"), [([[25], [15]], [40]), ([[40], [28]], [34, 34]), ([[50, 40], [40]], [44, 44, 42])]
)
def test_batch_norms_have_the_mean_statistics_of_equal_blocks(
    row_groups: list[list[int]], blocks: list[int], tmp_path: Path
) -> None:
    index = ClipIndex([write_source(tmp_path, row_groups, LENGTHS)])
    clips = blocks_of(index, blocks[0])
    assert [len(block) for block in clips] == blocks
    assert sorted(np.concatenate(clips)) == list(range(sum(blocks)))
    calibrated = build(index)
    statistics = index.statistics(FRONT_END)
    log_mel = LogMel(FRONT_END, statistics.mean, statistics.std)
    xs = [log_mel(torch.from_numpy(waves_of(block))).double()[:, None] for block in clips]
    for convolution, norm, relu in calibrated.encoder.conv.double():
        xs = [convolution(x) for x in xs]
        values = [x.transpose(0, 1).flatten(1) for x in xs]
        means, variances = [v.mean(1) for v in values], [v.var(1, correction=1) for v in values]
        torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var, torch.stack(variances).mean(0), rtol=1e-4, atol=1e-5)
        xs = [
            relu(F.max_pool2d((x - mean.view(1, -1, 1, 1)) / (variance.view(1, -1, 1, 1) + 1e-5).sqrt(), 2))
            for x, mean, variance in zip(xs, means, variances, strict=True)
        ]


def test_a_single_clip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds 1 clip: the batch norms .* are calibrated on two at least"):
        build(ClipIndex([write_source(tmp_path, [[1]], LENGTHS)]))


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
