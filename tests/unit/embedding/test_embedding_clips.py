"""Vectors of whole clips equal those of each clip alone, in any order; damaged clips alone are NaN."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.sources import tone, write_source

from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import CropConfig, EncoderConfig, FrontEndConfig
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.embedding.clips import embed_clips, read_clips, read_out
from unfused_ray.models.encoder import LAYERS, AudioNTT2020
from unfused_ray.models.frozen import FrozenEncoder

SIZES = [[12, 11], [11, 11]]
NUM_CLIPS = 45
LENGTHS = (2_400, 4_000, 4_010, 7_000)
WAVES = [tone(clip_id, LENGTHS[clip_id % len(LENGTHS)]) for clip_id in range(NUM_CLIPS)]


def _encoder(front_end: FrontEndConfig) -> FrozenEncoder:
    torch.manual_seed(0)
    encoder = AudioNTT2020(EncoderConfig(channels=4, width=16), front_end.num_mels)
    return FrozenEncoder(encoder, LogMel(front_end, -5.0, 4.0), CropConfig(seconds=0.2))


@pytest.fixture(scope="module")
def encoder() -> FrozenEncoder:
    return _encoder(FrontEndConfig())


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ClipIndex:
    return ClipIndex([write_source(tmp_path_factory.mktemp("source"), SIZES, LENGTHS)])


def test_vectors_of_every_layer_are_those_of_each_whole_clip_alone(index: ClipIndex, encoder: FrozenEncoder) -> None:
    clip_ids = np.array([44, 0, 7, 23, 22, 7])
    embeddings = embed_clips(encoder, index, clip_ids)
    alone = [encoder.layers(WAVES[clip_id], 16_000) for clip_id in clip_ids]
    assert tuple(embeddings) == LAYERS
    for layer, vectors_ND in embeddings.items():
        assert vectors_ND.dtype == np.float32
        expected_ND = torch.cat([layers[layer] for layers in alone]).numpy()
        np.testing.assert_allclose(vectors_ND, expected_ND, rtol=1e-4, atol=1e-5)


@given(clip_ids=st.lists(st.integers(0, NUM_CLIPS - 1), max_size=8))
def test_any_clips_in_any_order_are_read_once_each(index: ClipIndex, clip_ids: list[int]) -> None:
    found = dict(clip for clips in read_clips(index, np.array(clip_ids, np.int64)) for clip in clips)
    assert sorted(found) == list(range(len(clip_ids)))
    for position, clip_id in enumerate(clip_ids):
        np.testing.assert_array_equal(found[position], WAVES[clip_id])


@pytest.mark.parametrize("clip_id", [-1, NUM_CLIPS])
def test_a_clip_that_does_not_exist_is_refused(index: ClipIndex, encoder: FrozenEncoder, clip_id: int) -> None:
    with pytest.raises(ValueError, match=f"must lie in 0 … {NUM_CLIPS - 1}"):
        embed_clips(encoder, index, np.array([3, clip_id]))


def test_damaged_clips_and_those_of_a_damaged_shard_are_nan_and_the_others_are_not(
    encoder: FrozenEncoder, tmp_path: Path
) -> None:
    manifest = write_source(tmp_path, SIZES, LENGTHS, damaged=[5])
    shard = tmp_path / "00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-200] + bytes(200))
    embeddings = embed_clips(encoder, ClipIndex([manifest]), np.arange(NUM_CLIPS))
    for vectors_ND in embeddings.values():
        np.testing.assert_array_equal(np.isnan(vectors_ND).all(axis=1), np.isnan(vectors_ND).any(axis=1))
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(vectors_ND).all(axis=1)), [5, *range(23, NUM_CLIPS)])


def test_shards_of_another_sample_rate_are_refused(index: ClipIndex) -> None:
    with pytest.raises(ValueError, match="16000 Hz, the encoder at 32000 Hz"):
        embed_clips(_encoder(FrontEndConfig(sample_rate=32_000)), index, np.arange(2))


def test_a_readout_lays_the_chosen_layers_side_by_side() -> None:
    layers = {layer: np.full((2, 1), place) for place, layer in enumerate(LAYERS)}
    for cut, readout, expected in (
        ("fc1", "last", [3]),
        ("fc1", "blocks", [0, 1, 2]),
        ("fc1", "both", [0, 1, 2, 3]),
        ("block2", "both", [0, 1]),
    ):
        assert read_out(layers, cut, readout)[0].tolist() == expected
