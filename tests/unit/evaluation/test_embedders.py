"""Encoders of others as rows of a table embed whole clips, their vectors are kept, and odd encoders are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soxr
from support.embedders import Bands
from support.evaluations import evaluated
from support.sources import tone
from support.tasks import CROP, LENGTHS, PROTOCOL, write_encoder, write_task

from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.embedding import cache as cache_module
from unfused_ray.embedding.cache import EmbeddingCache
from unfused_ray.evaluation.cells import MEASURES
from unfused_ray.evaluation.embedders import vectors_of_clips
from unfused_ray.evaluation.protocol import load_protocol
from unfused_ray.evaluation.systems import parse_model
from unfused_ray.evaluation.tasks import load_task

NUM_TRAIN, NUM_TEST = 32, 16
NUM_CLIPS = NUM_TRAIN + NUM_TEST


@pytest.fixture
def task(tmp_path: Path) -> str:
    return write_task(tmp_path / "tones", NUM_TRAIN, 0, NUM_TEST)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The waves of every call of ``Bands.embed``."""
    calls: list[np.ndarray] = []
    monkeypatch.setattr(Bands, "heard", calls)
    return calls


def expected(clip: int) -> np.ndarray:
    wave = tone(clip, LENGTHS[clip % len(LENGTHS)])
    whole = np.resize(wave, CROP.num_samples(16_000)) if len(wave) < CROP.num_samples(16_000) else wave
    halved = soxr.resample(whole.astype(np.float32) / 2**15, 16_000, 8_000)
    return np.array([band.mean() for band in np.array_split(np.abs(np.fft.rfft(halved)) / len(halved), 64)])


def test_an_encoder_of_others_is_a_row_whose_vectors_and_cell_are_kept_until_its_version_changes(
    tmp_path: Path, task: str, heard: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = f"{write_encoder(tmp_path / 'ours' / 'encoder', 'block1')}", "theirs=support.embedders:Bands"
    first = evaluated(tmp_path, task, *models)
    assert [row.name for row in first.rows] == ["log-mel statistics", "ours", "theirs"]
    assert "The training clips of theirs are not known, so near-copies among them are not counted" in first.notes
    theirs = first.rows[-1]
    assert (theirs.parameters, theirs.multiply_adds, theirs.num_seeds) == (64, None, 1)
    for measure in MEASURES:
        assert theirs.accuracy[measure]["tones"].value > 0.5
    assert (tmp_path / "out" / "tones" / "theirs-map.png").exists()
    assert sum(map(len, heard)) == NUM_CLIPS + 1  # one more call shows the vectors' size
    assert {wave.dtype for wave in heard} == {np.dtype(np.float32)}
    assert min(wave.shape[1] for wave in heard) == round(CROP.num_samples(16_000) / 2)

    heard.clear()
    assert evaluated(tmp_path, task, *models) == first
    (tmp_path / "out" / "tones" / "theirs.json").unlink()
    assert evaluated(tmp_path, task, *models) == first
    assert not heard
    monkeypatch.setattr(Bands, "version", "2")
    assert evaluated(tmp_path, task, *models) == first
    assert heard


def test_vectors_that_a_gpu_has_made_are_kept_apart(
    tmp_path: Path, task: str, heard: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, loaded = parse_model("theirs=support.embedders:Bands"), load_task(task)
    (tmp_path / "protocol.toml").write_text(PROTOCOL)
    protocol = load_protocol(str(tmp_path / "protocol.toml")).config

    def vectors(cache: EmbeddingCache) -> int:
        """Compute or read the vectors; return the number of calls of the encoder."""
        heard.clear()
        (found,) = model.vectors(loaded, protocol, cache)
        assert np.isfinite(found).all()
        return len(heard)

    on_processor = EmbeddingCache(str(tmp_path / "cache"))
    monkeypatch.setattr(cache_module, "_kind_here", lambda: "cuda")
    on_gpu = EmbeddingCache(str(tmp_path / "cache"))
    assert vectors(on_gpu)
    monkeypatch.setattr(cache_module, "_kind_here", lambda: "cpu")
    assert not vectors(on_gpu)
    assert vectors(on_processor)
    assert not vectors(on_processor)


def test_vectors_are_those_of_whole_clips_one_by_one_and_damaged_ones_are_none(tmp_path: Path, task: str) -> None:
    index = ClipIndex.load([task], None)
    clip_ids = np.arange(NUM_CLIPS)[::-1]
    vectors = vectors_of_clips(Bands(), CROP, index, clip_ids)
    for clip, vector in zip(clip_ids.tolist(), vectors, strict=True):
        np.testing.assert_allclose(vector, expected(clip), rtol=1e-3, atol=1e-6)
    shard = tmp_path / "tones" / "00001.parquet"  # the shard of all test clips
    shard.write_bytes(shard.read_bytes()[:-100] + bytes(100))
    assert (
        np.isnan(vectors_of_clips(Bands(), CROP, index, clip_ids)).all(axis=1).tolist()
        == [True] * NUM_TEST + [False] * NUM_TRAIN
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no.such.module:Encoder", "no.such.module:Encoder cannot be made: No module named 'no'.* PYTHONPATH"),
        ("support.embedders:Nothing", "has no attribute 'Nothing'"),
        ("support.embedders:Unversioned", "gives a Unversioned without version"),
        ("support.embedders:Frames", r"Frames.embed gave shape \(1, 4960, 2\) for 1 clips, not a vector each"),
    ],
)
def test_what_is_no_encoder_is_refused(tmp_path: Path, task: str, spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluated(tmp_path, task, f"theirs={spec}")


@pytest.mark.parametrize(
    ("text", "name"),
    [("package.module:Encoder", "Encoder"), ("theirs=package:make", "theirs"), ("a b=package:make", "a b")],
)
def test_a_module_and_its_callable_are_no_path(text: str, name: str) -> None:
    assert parse_model(text).name == name
    assert not hasattr(parse_model(text), "path")
