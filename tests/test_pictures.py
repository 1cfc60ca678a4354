"""Pictures and tables of a run show what its folder holds: a run of clips whose labels and clusters are known."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread
from rich.console import Console

from unfused_ray import storage
from unfused_ray.audio.decode import encode_flac
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.clustering.assignment import Assignment, write_assignment
from unfused_ray.config import CropConfig, DecarConfig, EncoderConfig, FrontEndConfig, PretrainConfig
from unfused_ray.data.shards import SCHEMA, ClipIndex, Manifest, Shard
from unfused_ray.evaluation import figures, pictures
from unfused_ray.evaluation.embed import embed_clips, read_clips
from unfused_ray.evaluation.run_folder import RunFolder, curves
from unfused_ray.evaluation.summary import runs_table, summary
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.models.export import FrozenEncoder, load_encoder, save_encoder
from unfused_ray.storage import sha256_file
from unfused_ray.training.checkpoint import CheckpointStore, Position
from unfused_ray.training.run import Lease, Run, Status

NUM_CLIPS = 45
NUM_CLUSTERS = 5
RATE = 16_000
FRONT_END = FrontEndConfig()
ENCODER = EncoderConfig(channels=4, width=16)
CROP = CropConfig(seconds=0.2)
LABELS = ("hum", "hiss", "")
FIGURES = ("epoch", "loss", "inertia", "effective_rank", "empty_clusters", "clips_per_second", "nmi_previous")
HISTORY = [
    dict(zip(FIGURES[:-1], (0.0, 1.6, 30.0, 7.5, 0.0, 50.0), strict=True)),
    dict(zip(FIGURES, (1.0, 1.2, 20.0, 6.5, 2.0, 60.0, 0.75), strict=True)),
]


class Example(NamedTuple):
    """A finished run and what it was made of."""

    uri: str
    data: str
    waves: list[np.ndarray]


def _wave(clip_id: int) -> np.ndarray:
    """Hums (0, 3, 6 …), hisses (1, 4 …) and clips without a label (2, 5 …), of different lengths."""
    rng = np.random.default_rng(clip_id)
    num_samples = 2400 + 160 * (clip_id % 20)
    noise = rng.standard_normal(num_samples) * 2000
    hum = np.sin(np.arange(num_samples) * 2 * np.pi * 220 / RATE) * 8000
    return (noise if clip_id % 3 == 1 else hum + noise / 100).astype(np.int16)


def _prepare(folder: Path, waves: list[np.ndarray], damaged: int = -1) -> None:
    """Two shards of two row groups, the audio of one clip damaged."""
    shards = []
    for number, ids in enumerate(np.array_split(np.arange(len(waves)), 2)):
        rows = {
            "audio": [encode_flac(waves[i], RATE) if i != damaged else b"not audio" for i in ids],
            "num_samples": [len(waves[i]) for i in ids],
            "key": [f"clip {i}" for i in ids],
            "labels": [[LABELS[i % 3]] if LABELS[i % 3] else [] for i in ids],
            "split": [""] * len(ids),
            "group": [""] * len(ids),
        }
        path = folder / f"{number:05d}.parquet"
        size = -(-len(ids) // 2)
        pq.write_table(pa.table(rows, schema=SCHEMA), path, row_group_size=size)
        seconds = sum(len(waves[i]) for i in ids) / RATE
        row_groups, digest = (size, len(ids) - size), sha256_file(str(path))
        shards.append(Shard(path.name, "", row_groups, seconds, path.stat().st_size, digest, {}))
    Manifest(str(folder), tuple(shards), {}, {"front_end": FRONT_END.model_dump()}).save()


def _assignment(epoch: int) -> Assignment:
    """Cluster sizes 15, 12, 9, 6 and 3; the clip with the highest id is the nearest to its centroid."""
    labels = np.repeat(np.arange(NUM_CLUSTERS), [15, 12, 9, 6, 3]).astype(np.int32)
    distances = np.linspace(1, 0, NUM_CLIPS, dtype=np.float32)
    return Assignment(epoch, (labels,), (distances,), (np.eye(NUM_CLUSTERS, 8, dtype=np.float32),), {})


def _write_run(uri: str, data: str) -> None:
    """The folder that a finished run on ``data`` leaves."""
    method = DecarConfig(num_clusters=(NUM_CLUSTERS,), projection_dim=8)
    run = Run(uri)
    run.open(PretrainConfig(data=(data,), name="hum", epochs=2, method=method), {"num_clips": NUM_CLIPS})
    run.write_status(Status("finished", 2, 0))
    (Path(uri) / "history.json").write_text(json.dumps(HISTORY))
    _commit(uri, Position(2, 0))
    write_assignment(f"{uri}/assignments/epoch-0000", Assignment(0, (), (), (), {}))
    write_assignment(f"{uri}/assignments/epoch-0001", _assignment(1))
    torch.manual_seed(0)
    encoder = AudioNTT2020(ENCODER, FRONT_END.num_mels)
    save_encoder(f"{uri}/encoder", encoder, FRONT_END, CROP, -5.0, 4.0, {})


def _commit(uri: str, position: Position) -> None:
    """A checkpoint that holds only what every checkpoint must."""
    store = CheckpointStore(uri, keep=1)
    storage.write_bytes(storage.join(store.begin(position), "bank", "bank.json"), b"{}")
    store.commit(position, {}, {})


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    folder = tmp_path_factory.mktemp("runs")
    data, uri = folder / "data", str(folder / "runs" / "hum")
    data.mkdir()
    waves = [_wave(clip_id) for clip_id in range(NUM_CLIPS)]
    _prepare(data, waves)
    _write_run(uri, str(data))
    return Example(uri, str(data), waves)


@pytest.fixture(scope="module")
def encoder(example: Example) -> FrozenEncoder:
    return load_encoder(f"{example.uri}/encoder")


# --- embedding ---


def test_embeddings_are_those_of_each_whole_clip_alone(example: Example, encoder: FrozenEncoder) -> None:
    clip_ids = np.array([44, 0, 7, 23, 22, 7])
    embeddings = embed_clips(encoder, ClipIndex.load([example.data], None), clip_ids)
    alone = torch.cat([encoder.embed(example.waves[clip_id], RATE) for clip_id in clip_ids]).numpy()
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, alone, rtol=1e-4, atol=1e-5)


@given(clip_ids=st.lists(st.integers(0, NUM_CLIPS - 1), max_size=8))
def test_any_clips_in_any_order_are_read_once_each(example: Example, clip_ids: list[int]) -> None:
    index = ClipIndex.load([example.data], None)
    found = dict(clip for clips in read_clips(index, np.array(clip_ids, np.int64)) for clip in clips)
    assert sorted(found) == list(range(len(clip_ids)))
    for position, clip_id in enumerate(clip_ids):
        np.testing.assert_array_equal(found[position], example.waves[clip_id])


@pytest.mark.parametrize("clip_id", [-1, NUM_CLIPS])
def test_a_clip_that_does_not_exist_is_refused(example: Example, encoder: FrozenEncoder, clip_id: int) -> None:
    with pytest.raises(ValueError, match=f"must lie in 0 … {NUM_CLIPS - 1}"):
        embed_clips(encoder, ClipIndex.load([example.data], None), np.array([3, clip_id]))


def test_damaged_clips_and_those_of_a_damaged_shard_are_nan_and_the_others_are_not(
    example: Example, encoder: FrozenEncoder, tmp_path: Path
) -> None:
    _prepare(tmp_path, example.waves, damaged=5)
    shard = tmp_path / "00001.parquet"
    content = bytearray(shard.read_bytes())
    content[-200:] = bytes(200)
    shard.write_bytes(content)
    embeddings = embed_clips(encoder, ClipIndex.load([str(tmp_path)], None), np.arange(NUM_CLIPS))
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(embeddings).all(axis=1)), [5, *range(23, NUM_CLIPS)])


def test_shards_of_another_sample_rate_are_refused(example: Example) -> None:
    front_end = FrontEndConfig(sample_rate=32_000)
    other = FrozenEncoder(AudioNTT2020(ENCODER, front_end.num_mels), LogMel(front_end), CROP)
    with pytest.raises(ValueError, match="16000 Hz, the encoder at 32000 Hz"):
        embed_clips(other, ClipIndex.load([example.data], None), np.arange(2))


# --- pictures ---


def test_a_run_gets_three_pictures_that_are_not_blank(example: Example) -> None:
    uris = pictures.write(example.uri)
    assert uris == [f"{example.uri}/pictures/{name}.png" for name in ("health", "map", "clusters")]
    for uri in uris:
        pixels = imread(io.BytesIO(Path(uri).read_bytes()), format="png")
        assert min(pixels.shape[:2]) > 300
        assert pixels[..., :3].std() > 0.05


def test_a_run_without_an_assignment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not the folder of a run"):
        pictures.write(str(tmp_path))
    Run(str(tmp_path)).open(PretrainConfig(), {"num_clips": 1})
    with pytest.raises(FileNotFoundError, match="holds no assignment"):
        _ = RunFolder(str(tmp_path)).assignment


def test_health_draws_the_history() -> None:
    figure = figures.draw_health("run", HISTORY, DecarConfig(num_clusters=(5,)))
    loss, _, nmi, rank, *_ = figure.axes
    np.testing.assert_array_equal(loss.lines[0].get_xydata(), [[0, 1.6], [1, 1.2]])
    np.testing.assert_array_equal(nmi.lines[0].get_xydata(), [[1, 0.75]])
    np.testing.assert_array_equal(rank.lines[0].get_xydata(), [[0, 7.5], [1, 6.5]])
    assert f"{np.log(5):.2f}" in loss.texts[0].get_text()


def test_each_head_has_its_own_curve() -> None:
    history = [{"epoch": 3.0, "head0/inertia": 1.0, "head1/inertia": 2.0, "inertia_of_something": 9.0}]
    assert curves(history, "inertia") == {"head0": ([3], [1.0]), "head1": ([3], [2.0])}


def test_map_draws_every_point_once_in_each_panel() -> None:
    positions = np.random.default_rng(0).standard_normal((40, 2))
    ids = np.arange(40) % 21 - 1
    grouping = figures.Grouping("by label", ids, [f"label {i}" for i in range(20)], "others")
    figure = figures.draw_map("run", positions, [grouping, grouping])
    assert len(figure.axes) == 2
    for axis in figure.axes:
        drawn = np.concatenate([points.get_offsets() for points in axis.collections])
        np.testing.assert_array_equal(np.sort(drawn, axis=0), np.sort(positions, axis=0))
        looks = {(*points.get_facecolor()[0], points.get_paths()[0].vertices.shape) for points in axis.collections}
        assert len(looks) == 21


def test_projection_keeps_groups_apart_and_repeats() -> None:
    rng = np.random.default_rng(0)
    embeddings = np.concatenate([rng.normal(centre, 0.1, (30, 12)) for centre in np.eye(3, 12)])
    positions = pictures.project(embeddings)
    np.testing.assert_array_equal(positions, pictures.project(embeddings))
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1) + 1e9 * np.eye(90)
    assert ((distances.argmin(axis=1) // 30) == np.arange(90) // 30).all()


@given(sizes=st.lists(st.integers(0, 20), min_size=1, max_size=30).filter(any), num_shown=st.integers(1, 10))
def test_shown_clusters_spread_from_the_largest_to_the_smallest(sizes: list[int], num_shown: int) -> None:
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    shown = pictures.spread_clusters(clusters, num_shown)
    filled = sorted((size for size in sizes if size), reverse=True)
    assert len(set(shown.tolist())) == len(shown) == min(num_shown, len(filled))
    found = [sizes[cluster] for cluster in shown]
    assert found == sorted(found, reverse=True)
    assert found[0] == filled[0]
    if len(shown) > 1:
        assert found[-1] == filled[-1]


def test_sheet_shows_the_clips_nearest_to_each_centroid_as_far_as_they_can_be_read(
    example: Example, encoder: FrozenEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sheets: list[list[figures.Cluster]] = []

    def draw(title: str, clusters: list[figures.Cluster], front_end: FrontEndConfig) -> figures.Figure:
        sheets.append(clusters)
        return figures.draw_clusters(title, clusters, front_end)

    monkeypatch.setattr(pictures, "draw_clusters", draw)
    _prepare(tmp_path, example.waves, damaged=12)
    _write_run(str(tmp_path / "run"), str(tmp_path))
    pictures.write(str(tmp_path / "run"))
    (sheet,) = sheets
    assert [len(row.log_mels) for row in sheet] == [6, 6, 6, 6, 3]
    # Clips 0 to 14, five of each kind; the distances fall with the id. 14 is without a label, 13 a hiss, 12 a hum.
    assert sheet[0].title == "cluster 0\n15 clips\n50% hum"
    assert sheet[0].captions == ["", "hiss", "hum"] * 2
    assert [log_mel is None for log_mel in sheet[0].log_mels] == [False, False, True, False, False, False]
    expected = encoder.log_mel(torch.from_numpy(example.waves[14])[None])[0].numpy()
    np.testing.assert_allclose(sheet[0].log_mels[0], expected, rtol=1e-4, atol=1e-5)


def test_sheet_leaves_the_place_of_an_unreadable_clip_empty() -> None:
    image = np.random.default_rng(0).standard_normal((64, 30)).astype(np.float32)
    row = figures.Cluster("cluster 3\n2 clips", [None, image], ["hum", "hiss"])
    figure = figures.draw_clusters("run", [row], FRONT_END)
    assert [len(axis.images) for axis in figure.axes] == [0, 1]
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), image)
    np.testing.assert_allclose(figure.axes[0].get_xlim(), (0, 30 * 160 / RATE))


# --- tables ---


def _text(table: object) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(table)
    return " ".join(console.file.getvalue().split())


def test_summary_says_what_the_run_did_and_where_it_is(example: Example) -> None:
    text = _text(summary(example.uri))
    for part in (
        "state finished",
        "2 of 2 epochs",
        "loss 1.600 → 1.200",
        "NMI to the epoch before 0.75",
        "effective rank 7.5 → 6.5",
        "empty clusters 0 → 2",
        f"clips {NUM_CLIPS}",
        f"{example.uri}/checkpoints/e0002-s000000",
        f"{example.uri}/encoder",
    ):
        assert part in text


def test_a_running_run_whose_process_is_gone_has_died(example: Example, tmp_path: Path) -> None:
    uri = str(tmp_path / "runs" / "second")
    run = Run(uri)
    run.open(PretrainConfig(name="second", epochs=7), {"num_clips": 9})
    (tmp_path / "runs" / "no run").mkdir()
    with Lease(uri, on_loss=lambda: None):
        assert "second starting 0 of 7 epochs none" in _text(runs_table(str(tmp_path / "runs")))
        run.write_status(Status("running", 0, 0))
        assert "second running" in _text(runs_table(str(tmp_path / "runs")))
    _commit(uri, Position(3, 20))
    text = _text(runs_table(str(tmp_path / "runs")))
    assert "second died 3 of 7 epochs, 20 steps 20" in text
    assert "no run" not in text
