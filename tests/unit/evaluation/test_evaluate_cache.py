"""Kept vectors are made once, and again if anything that determines them has changed."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from support.sources import write_source
from support.tasks import CROP, LENGTHS, write_encoder

from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import CropConfig, FrontEndConfig
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.embedding import cache as cache_module
from unfused_ray.embedding.cache import EmbeddingCache, KeptVectors, key
from unfused_ray.embedding.clips import embed_clips, read_out
from unfused_ray.models.export import load_encoder
from unfused_ray.models.frozen import FrozenEncoder


@pytest.fixture
def encoder(tmp_path: Path) -> FrozenEncoder:
    return load_encoder(write_encoder(tmp_path / "encoder", "fc2"))


@pytest.fixture
def index(tmp_path: Path) -> ClipIndex:
    return ClipIndex([write_source(tmp_path / "source", [[6], [3]], LENGTHS, ["train", "test"])])


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of clips of each call of ``embed_clips``."""
    calls: list[int] = []

    def counting(encoder: FrozenEncoder, index: ClipIndex, clip_ids: np.ndarray) -> dict[str, np.ndarray]:
        calls.append(len(clip_ids))
        return embed_clips(encoder, index, clip_ids)

    monkeypatch.setattr(cache_module, "embed_clips", counting)
    return calls


def assert_equal_layers(found: KeptVectors, expected: dict[str, np.ndarray], rtol: float = 0.0) -> None:
    for layer in expected:
        np.testing.assert_allclose(found.read(layer, "last"), expected[layer], rtol, atol=rtol)
    np.testing.assert_allclose(found.read("fc2", "both"), read_out(expected, "fc2", "both"), rtol, atol=rtol)


def test_vectors_are_those_of_all_clips_and_the_second_time_nothing_is_computed(
    tmp_path: Path, encoder: FrozenEncoder, index: ClipIndex, embedded: list[int]
) -> None:
    expected = embed_clips(encoder, index, np.arange(9))
    assert_equal_layers(EmbeddingCache(str(tmp_path / "cache")).vectors(encoder, index), expected)
    assert_equal_layers(EmbeddingCache(str(tmp_path / "cache")).vectors(encoder, index), expected)
    assert embedded == [9]


def test_vectors_are_kept_in_parts_and_go_on_behind_the_last_one(
    tmp_path: Path, encoder: FrozenEncoder, index: ClipIndex, embedded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "CLIPS_PER_PART", 4)
    expected = embed_clips(encoder, index, np.arange(9))
    vectors = EmbeddingCache(str(tmp_path / "cache")).vectors(encoder, index)
    assert_equal_layers(vectors, expected, rtol=1e-5)  # parts change which clips share a batch
    assert embedded == [4, 4, 1]
    files = sorted((tmp_path / "cache").rglob("*.safetensors"))
    assert [file.name for file in files] == ["000000000.safetensors", "000000004.safetensors", "000000008.safetensors"]
    files[1].unlink()  # as after an interruption
    assert_equal_layers(vectors, expected, rtol=1e-5)
    assert embedded == [4, 4, 1, 4]


def test_a_damaged_file_is_made_again(
    tmp_path: Path, encoder: FrozenEncoder, index: ClipIndex, embedded: list[int]
) -> None:
    cache = EmbeddingCache(str(tmp_path / "cache"))
    expected = embed_clips(encoder, index, np.arange(9))
    assert_equal_layers(cache.vectors(encoder, index), expected)
    (file,) = (tmp_path / "cache").rglob("*.safetensors")
    whole = file.read_bytes()
    for damaged in (whole[:-1], b"", b"\xff" * len(whole)):
        file.write_bytes(damaged)
        assert_equal_layers(cache.vectors(encoder, index), expected)
        assert file.read_bytes() == whole
    assert embedded == [9] * 4


def test_vectors_of_a_damaged_shard_are_kept_until_the_next_time(
    tmp_path: Path, encoder: FrozenEncoder, index: ClipIndex, embedded: list[int]
) -> None:
    cache = EmbeddingCache(str(tmp_path / "cache"))
    shard = tmp_path / "source" / "00000.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100] + bytes(100))
    vectors = cache.vectors(encoder, index)
    for _ in range(2):
        assert np.isnan(vectors.read("fc2", "last")).all(axis=1).tolist() == [True] * 6 + [False] * 3
    assert embedded == [9]
    cache.vectors(encoder, index)  # the shard is still damaged
    assert embedded == [9, 9]
    shard.write_bytes(whole)
    for _ in range(2):
        assert np.isfinite(cache.vectors(encoder, index).read("fc2", "last")).all()
    assert embedded == [9, 9, 9]
    assert [file.name for file in (tmp_path / "cache").rglob("*.safetensors")] == ["000000000.safetensors"]


def test_the_key_changes_with_all_that_decides_the_vectors_and_with_nothing_else(
    tmp_path: Path, encoder: FrozenEncoder, index: ClipIndex
) -> None:
    def reading(mean: float = 1.0, std: float = 2.0, crop: CropConfig = CROP, **front_end: float) -> FrozenEncoder:
        return FrozenEncoder(encoder.encoder, LogMel(FrontEndConfig(**front_end), mean, std), crop)

    other_weights = load_encoder(write_encoder(tmp_path / "other", "fc2", seed=1)).encoder
    cut = encoder.encoder.truncated("fc1")
    encoders = {
        "as it is": reading(),
        "other weights": FrozenEncoder(other_weights, LogMel(FrontEndConfig(), 1.0, 2.0), CROP),
        "another cut": FrozenEncoder(cut, LogMel(FrontEndConfig(), 1.0, 2.0), CROP),
        "another mean": reading(mean=1.1),
        "another deviation": reading(std=2.1),
        "another rule for short clips": reading(crop=CropConfig(seconds=0.31, short_clips="centre")),
        "another length of short clips": reading(crop=CropConfig(seconds=0.4, short_clips="tile")),
        "another front end": reading(floor=1e-6),
    }
    keys = {name: key(encoder, index) for name, encoder in encoders.items()}
    keys["other clips"] = key(reading(), ClipIndex(index.manifests, ["train"]))
    assert len(set(keys.values())) == len(keys)
    assert key(reading(), ClipIndex(index.manifests)) == keys["as it is"]

    running = encoder.encoder.conv[0][1].running_mean
    assert running is not None
    running += 1  # calibration changes these, so the key includes them
    assert key(reading(), index) not in keys.values()


def test_vectors_of_a_gpu_are_kept_apart_and_a_process_without_one_reads_but_does_not_add_to_them(
    tmp_path: Path,
    encoder: FrozenEncoder,
    index: ClipIndex,
    embedded: list[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    uri = str(tmp_path / "cache")
    assert key(encoder, index, "cuda") != key(encoder, index) == key(encoder, index, "cpu")
    monkeypatch.setattr(cache_module, "_kind_here", lambda: "cuda")
    monkeypatch.setattr(FrozenEncoder, "to", lambda self, device: self)  # still computed on the processor
    on_gpu = EmbeddingCache(uri)
    assert on_gpu.device == "cuda"
    expected = embed_clips(encoder, index, np.arange(9))
    assert_equal_layers(on_gpu.vectors(encoder, index), expected)
    monkeypatch.setattr(cache_module, "_kind_here", lambda: "cpu")
    assert_equal_layers(on_gpu.vectors(encoder, index), expected)
    assert embedded == [9]
    assert_equal_layers(EmbeddingCache(uri).vectors(encoder, index), expected)
    assert embedded == [9, 9]
    shard = tmp_path / "source" / "00000.parquet"
    whole = shard.read_bytes()
    (folder,) = (each for each in (tmp_path / "cache").iterdir() if each.name == key(encoder, index, "cuda"))
    (file,) = folder.iterdir()
    file.unlink()  # as if lost while cells are filled
    with caplog.at_level(logging.WARNING, logger=cache_module.logger.name):
        assert_equal_layers(on_gpu.vectors(encoder, index), expected)
    assert "lacks the clips 0 to 9: they are embedded in a process without a GPU" in caplog.text
    assert not list(folder.iterdir())
    assert embedded == [9, 9, 9]
    monkeypatch.setattr(cache_module, "_kind_here", lambda: "cuda")
    shard.write_bytes(whole[:-100] + bytes(100))
    on_gpu.vectors(encoder, index)
    monkeypatch.setattr(cache_module, "_kind_here", lambda: "cpu")
    found = on_gpu.vectors(encoder, index).read("fc2", "last")  # the GPU's, although clips are damaged
    assert np.isnan(found).all(axis=1).tolist() == [True] * 6 + [False] * 3
    assert embedded == [9, 9, 9, 9]


def test_an_encoder_that_follows_from_its_inputs_is_made_only_for_what_is_missing(
    tmp_path: Path, encoder: FrozenEncoder, index: ClipIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "CLIPS_PER_PART", 4)
    made: list[int] = []

    def make() -> FrozenEncoder:
        made.append(1)
        return encoder

    cache = EmbeddingCache(str(tmp_path / "cache"))
    for seed, expected in ((0, 1), (0, 1), (1, 2)):
        found = cache.vectors_of({"seed": seed}, index, make)
        assert len(made) == expected
        assert_equal_layers(found, embed_clips(encoder, index, np.arange(9)), rtol=1e-5)
