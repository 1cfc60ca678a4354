"""Rows of a table read clips alike, with the task's training statistics; random networks see no test clips."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from support.sources import tone
from support.tasks import CROP, LENGTHS, PROTOCOL, SMALL, write_encoder, write_task

from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import Cut, EncoderConfig, FrontEndConfig, Readout
from unfused_ray.data.shards.format import Statistics
from unfused_ray.embedding.cache import EmbeddingCache
from unfused_ray.embedding.random_network import random_encoder
from unfused_ray.evaluation.protocol import ProtocolConfig, load_protocol
from unfused_ray.evaluation.systems import (
    LogMelStatistics,
    RandomNetwork,
    System,
    TrainedModel,
    largest_cost,
    random_rows,
)
from unfused_ray.evaluation.table import markdown
from unfused_ray.evaluation.tasks import Task, load_task
from unfused_ray.models.cost import num_parameters
from unfused_ray.models.encoder import LAYERS, AudioNTT2020
from unfused_ray.models.export import load_encoder
from unfused_ray.models.frozen import FrozenEncoder

FRONT_END = FrontEndConfig()
NUM_TRAIN, NUM_CLIPS = 14, 20
WAVES = [tone(clip, LENGTHS[clip % len(LENGTHS)]) for clip in range(NUM_CLIPS)]


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> ProtocolConfig:
    path = tmp_path_factory.mktemp("protocol") / "protocol.toml"
    path.write_text(PROTOCOL)
    return load_protocol(str(path)).config


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return load_task(write_task(tmp_path_factory.mktemp("tones"), NUM_TRAIN, 0, NUM_CLIPS - NUM_TRAIN))


@pytest.fixture
def cache(tmp_path: Path) -> EmbeddingCache:
    return EmbeddingCache(str(tmp_path / "cache"))


def cut_at(cut: Cut, **fields: float) -> EncoderConfig:
    return SMALL.replace(cut=cut, **fields)


def naive_log_mel(wave: np.ndarray) -> np.ndarray:
    power = librosa.feature.melspectrogram(
        y=wave / 2**15,
        sr=16_000,
        n_fft=1024,
        hop_length=160,
        n_mels=64,
        fmin=60,
        fmax=7800,
        pad_mode="reflect",
    )
    return np.log(np.maximum(power, 1.2e-7))


def naive_statistics() -> tuple[float, float]:
    values = np.concatenate([naive_log_mel(wave).ravel() for wave in WAVES[:NUM_TRAIN]])
    return float(values.mean()), float(values.std())


def repeated(wave: np.ndarray, samples: int) -> np.ndarray:
    return wave if len(wave) >= samples else np.tile(wave, samples // len(wave) + 1)[:samples]


def vectors_of(system: System, task: Task, protocol: ProtocolConfig, cache: EmbeddingCache) -> np.ndarray:
    (vectors,) = system.vectors(task, protocol, cache)
    return vectors


@pytest.mark.parametrize("rule", ["tile", "centre"])
def test_log_mel_statistics_are_those_of_librosas_spectrogram(
    task: Task, protocol: ProtocolConfig, cache: EmbeddingCache, rule: str
) -> None:
    protocol = protocol.replace(short_clips=rule)
    found = vectors_of(LogMelStatistics(FRONT_END), task, protocol, cache)
    assert found.shape == (NUM_CLIPS, 9 * 64)
    mean, std = naive_statistics()
    samples = round(0.31 * 16_000)
    for wave, row in zip(WAVES, found, strict=True):
        if len(wave) < samples and rule == "centre":
            before = (samples - len(wave)) // 2
            wave = np.pad(wave, (before, samples - len(wave) - before))
        values = (naive_log_mel(repeated(wave, samples)) - mean) / std
        expected = [summary(band) for summary in (np.mean, np.std, np.min) for band in values]
        expected += [np.quantile(band, share) for share in (0.25, 0.5, 0.75) for band in values]
        expected += [np.max(band) for band in values]
        steps = [[abs(after - before) for before, after in pairwise(band)] for band in values]
        expected += [summary(band) for summary in (np.mean, np.std) for band in steps]
        np.testing.assert_allclose(row, expected, rtol=1e-3, atol=1e-3)


def test_a_trained_model_reads_by_the_protocol_and_by_the_tasks_training_statistics_not_its_own(
    tmp_path: Path, task: Task, protocol: ProtocolConfig, cache: EmbeddingCache
) -> None:
    uri = write_encoder(tmp_path / "run", "fc2")
    readouts: tuple[Readout, ...] = ("last", "blocks", "both")
    model = TrainedModel("mine", uri)
    found = {name: vectors_of(model, task, protocol.replace(readout=name), cache) for name in readouts}
    assert len(list(Path(cache.uri).iterdir())) == 1  # every readout uses the same kept layers
    np.testing.assert_array_equal(vectors_of(model, task, protocol, cache), found["last"])
    network = load_encoder(uri).encoder
    mean, std = naive_statistics()
    samples = round(0.31 * 16_000)
    for clip, wave in enumerate(WAVES):
        log_mel = torch.tensor((naive_log_mel(repeated(wave, samples)) - mean) / std, dtype=torch.float32)[None]
        layers = {name: vector[0].numpy() for name, vector in network.layers(log_mel).items()}
        blocks = np.concatenate([layers["block1"], layers["block2"], layers["block3"]])
        expected = {"last": layers["fc2"], "blocks": blocks, "both": np.concatenate([blocks, layers["fc2"]])}
        for readout, vector in expected.items():
            np.testing.assert_allclose(found[readout][clip], vector, rtol=2e-3, atol=2e-3)


def test_of_a_network_that_ends_with_a_block_both_is_its_blocks(
    tmp_path: Path, task: Task, protocol: ProtocolConfig, cache: EmbeddingCache
) -> None:
    model = TrainedModel("mine", write_encoder(tmp_path / "run", "block2"))
    readouts: tuple[Readout, ...] = ("last", "blocks", "both")
    last, blocks, both = (vectors_of(model, task, protocol.replace(readout=name), cache) for name in readouts)
    assert (last.shape[1], blocks.shape[1]) == (4 * 16, 4 * 32 + 4 * 16)
    np.testing.assert_array_equal(both, blocks)
    np.testing.assert_array_equal(blocks[:, -last.shape[1] :], last)


def test_random_rows_share_the_deepest_network_and_read_what_one_of_their_own_shape_would(
    task: Task, protocol: ProtocolConfig, cache: EmbeddingCache
) -> None:
    rows = random_rows([(cut_at(cut), FRONT_END) for cut in ("block2", "fc2", "fc1")], 2)
    assert [row.shape.cut for row in rows] == ["block2", "fc2", "fc1"]
    assert all(row.deepest.cut == "fc2" for row in rows)
    statistics = task.statistics(FRONT_END)
    for row in rows:
        of_seeds = list(row.vectors(task, protocol, cache))
        of_blocks = list(row.vectors(task, protocol.replace(readout="blocks"), cache))
        assert len(of_seeds) == len(of_blocks) == 2
        for seed in (0, 1):
            own = random_encoder(row.shape, FRONT_END, CROP, task.training, statistics, seed)
            for clip in (0, 1, NUM_CLIPS - 1):
                layers = own.layers(WAVES[clip], 16_000)
                np.testing.assert_allclose(of_seeds[seed][clip], layers[row.shape.cut][0], rtol=1e-4, atol=1e-4)
                blocks = torch.cat([layers[name][0] for name in LAYERS[:3] if name in layers])
                np.testing.assert_allclose(of_blocks[seed][clip], blocks, rtol=1e-4, atol=1e-4)
        assert not np.allclose(of_seeds[0], of_seeds[1])
    assert len(list(Path(cache.uri).iterdir())) == 2  # one file a seed, for all three rows


def test_a_random_networks_cell_does_not_depend_on_what_else_is_in_the_table(task: Task) -> None:
    alone = random_rows([(cut_at("fc1"), FRONT_END)], 2)[0]
    beside = random_rows([(cut_at("fc1"), FRONT_END), (cut_at("fc2"), FRONT_END)], 2)[0]
    assert (alone.name, alone.identity(task)) == (beside.name, beside.identity(task))
    identities = [row.identity(task) for row in random_rows([(cut_at(cut), FRONT_END) for cut in LAYERS], 2)]
    more_seeds = random_rows([(cut_at("fc1"), FRONT_END)], 3)[0].identity(task)
    assert len({*identities, more_seeds}) == len(LAYERS) + 1


def test_there_is_one_random_row_a_shape_each_with_a_name_of_its_own() -> None:
    other = FrontEndConfig(f_max=7000)
    shapes = [
        (EncoderConfig(), FRONT_END),
        (EncoderConfig(dropout=0.1), FRONT_END),
        (EncoderConfig(cut="fc1"), FRONT_END),
        (EncoderConfig(width=1024), FRONT_END),
        (EncoderConfig(), other),
        (EncoderConfig(), FRONT_END),
    ]
    names = [row.name for row in random_rows(shapes, 1)]
    digest = other.digest()[:6]
    assert names == ["random fc2", "random fc1", "random fc2 (64 × 1024)", f"random fc2 (front end {digest})"]
    assert random_rows(shapes, 0) == []


def test_batch_norms_of_random_networks_and_statistics_are_of_the_training_split_alone(
    tmp_path: Path, protocol: ProtocolConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tasks have the same training clips and different test clips."""
    seen: list[tuple[int, Statistics]] = []

    def calibrate(*arguments: object) -> FrozenEncoder:
        seen.append((arguments[3].num_clips, arguments[4]))  # type: ignore[attr-defined,arg-type]
        return random_encoder(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("unfused_ray.evaluation.systems.random_encoder", calibrate)
    (row,) = random_rows([(cut_at("block3"), FRONT_END)], 1)
    trained: list[np.ndarray] = []
    for num_test in (6, 30):
        task = load_task(write_task(tmp_path / str(num_test), NUM_TRAIN, 0, num_test))
        vectors = vectors_of(row, task, protocol.replace(readout="blocks"), EmbeddingCache(str(tmp_path / "cache")))
        trained.append(vectors[task.splits == "train"])
    np.testing.assert_array_equal(*trained)
    assert [num_clips for num_clips, _ in seen] == [NUM_TRAIN] * 2
    for _, statistics in seen:
        np.testing.assert_allclose((statistics.mean, statistics.std), naive_statistics(), rtol=1e-5)


def test_statistics_that_a_source_lacks_are_computed_once_of_the_training_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    front_end = FrontEndConfig(f_max=7000)
    task = load_task(write_task(tmp_path, NUM_TRAIN, 0, 6))
    found = task.statistics(front_end)
    log_mel = LogMel(front_end)
    values = torch.cat([log_mel(torch.from_numpy(wave)[None]).ravel() for wave in WAVES[:NUM_TRAIN]]).double()
    np.testing.assert_allclose((found.mean, found.std), (values.mean(), values.std(correction=0)), rtol=1e-6)
    monkeypatch.setattr("unfused_ray.data.shards.statistics.clip_statistics", None)
    assert task.statistics(front_end) == found


def test_a_row_costs_what_its_largest_network_costs(tmp_path: Path) -> None:
    tasks = [load_task(write_task(tmp_path / name, 2, 0, 2)) for name in ("a", "b")]
    write_encoder(tmp_path / "a-run", "block1")
    write_encoder(tmp_path / "b-run", "fc1")
    model = TrainedModel("mine", f"{tmp_path}/{{task}}-run")
    expected = num_parameters(AudioNTT2020(cut_at("fc1"), 64))
    cost = largest_cost(model, tasks)
    assert cost is not None and cost[0] == expected
    assert cost == RandomNetwork(cut_at("fc1"), cut_at("fc1"), FRONT_END, (0,)).cost(tasks[0])
    assert largest_cost(LogMelStatistics(FRONT_END), tasks) is None


def test_a_name_with_a_bar_makes_no_column_of_its_own() -> None:
    first, _, row = markdown(["system", "accuracy"], [["ours | cut", "46.4"]]).splitlines()
    assert row == r"| ours \| cut | 46.4 |"
    assert first == "| system | accuracy |"
