"""Pictures and tables of a run show what its folder holds: a run of clips whose labels and clusters are known."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.image import imread
from rich.console import Console

from unfused_ray import storage
from unfused_ray.audio.decode import encode_flac
from unfused_ray.clustering.assignment import Assignment, write_assignment
from unfused_ray.config import (
    CropConfig,
    DecarConfig,
    DistillConfig,
    EncoderConfig,
    FrontEndConfig,
    PretrainConfig,
    PseudoLabelConfig,
    UnfusedConfig,
)
from unfused_ray.data.shards.format import SCHEMA, Manifest, Shard
from unfused_ray.figures import run as pictures
from unfused_ray.figures.curves import draw_health
from unfused_ray.figures.map import MAX_NAMED, Grouping, by_class, draw_map, project
from unfused_ray.figures.metrics import view_of
from unfused_ray.figures.spectrograms import SheetRow, draw_sheet
from unfused_ray.lease import Lease
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.models.export import load_encoder, load_student, save_encoder
from unfused_ray.report.facts import standing
from unfused_ray.report.terminal import runs_table, summary
from unfused_ray.runs.checkpoints import CheckpointStore, Position
from unfused_ray.runs.reader import RunReader, curves
from unfused_ray.runs.run import Run
from unfused_ray.runs.status import Status
from unfused_ray.storage import sha256_file

NUM_CLIPS = 45
NUM_CLUSTERS = 5
RATE = 16_000
FRONT_END = FrontEndConfig()
ENCODER = EncoderConfig(channels=4, width=16)
CROP = CropConfig(seconds=0.2)
LABELS = ("hum", "hiss", "")
FIGURES = ("epoch", "loss", "inertia", "effective_rank", "empty_clusters", "clips_per_second", "nmi_previous")
DAMAGED = 44
TERMS = ("epoch", "loss", "ce", "ce_branches", "kl", "mse", "agreement", "clips_per_second")
DISTILLATION = [
    dict(zip(TERMS, (0.0, 9.5, 3.25, 8.0, 1.5, 4.0, 0.125, 50.0), strict=True)),
    dict(zip(TERMS, (1.0, 2.5, 0.75, 2.0, 1.0, 3.0, 0.75, 60.0), strict=True)),
]
HISTORY = [
    dict(zip(FIGURES[:-1], (0.0, 1.6, 30.0, 7.5, 0.0, 50.0), strict=True)),
    dict(zip(FIGURES, (1.0, 1.2, 20.0, 6.5, 2.0, 60.0, 0.75), strict=True)),
]


class Example(NamedTuple):
    """A finished pre-training, a distillation of it on the same clips, and what they were made of."""

    uri: str
    student: str
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
    run.write_history(HISTORY)
    _commit(uri, Position(2, 0))
    write_assignment(f"{uri}/assignments/epoch-0000", Assignment(0, (), (), (), {}))
    write_assignment(f"{uri}/assignments/epoch-0001", _assignment(1))
    torch.manual_seed(0)
    encoder = AudioNTT2020(ENCODER, FRONT_END.num_mels)
    save_encoder(f"{uri}/encoder", encoder, FRONT_END, CROP, -5.0, 4.0, {})


def _write_distillation(uri: str, data: str, **labels: Any) -> None:
    """The folder that a finished distillation on ``data``, whose clip ``DAMAGED`` is damaged, leaves."""
    config = DistillConfig(
        data=(data,),
        name="hum-student",
        epochs=2,
        teacher="s3://bucket/hum/encoder?region=x",
        labels=PseudoLabelConfig(**{"num_clusters": (NUM_CLUSTERS,), **labels}),
        method=UnfusedConfig(alpha=0.6, beta=0.25),
    )
    run = Run(uri)
    run.open(config, {"num_clips": NUM_CLIPS})
    run.write_status(Status("finished", 2, 0))
    run.write_history(DISTILLATION)
    _commit(uri, Position(2, 0))
    assignment = _assignment(0)
    assignment.labels[0][DAMAGED], assignment.distances[0][DAMAGED] = -1, np.nan
    write_assignment(f"{uri}/pseudo-labels", replace(assignment, health={"dim": 8.0, "nmi_labels": 0.3125}))
    torch.manual_seed(0)
    student = AudioNTT2020(EncoderConfig(cut="fc1"), FRONT_END.num_mels)
    save_encoder(f"{uri}/student", student, FRONT_END, CROP, -5.0, 4.0, {})


def _commit(uri: str, position: Position) -> None:
    """A checkpoint that holds only what every checkpoint must."""
    store = CheckpointStore(uri, keep=1)
    storage.write_bytes(storage.join(store.begin(position), "bank", "bank.json"), b"{}")
    store.commit(position, {}, {})


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    folder = tmp_path_factory.mktemp("runs")
    data, damaged = folder / "data", folder / "damaged"
    example = Example(str(folder / "hum"), str(folder / "student"), [_wave(clip_id) for clip_id in range(NUM_CLIPS)])
    data.mkdir()
    damaged.mkdir()
    _prepare(data, example.waves)
    _prepare(damaged, example.waves, damaged=DAMAGED)
    _write_run(example.uri, str(data))
    _write_distillation(example.student, str(damaged))
    return example


# --- pictures ---


@pytest.mark.parametrize("stage", ["pretrain", "distill"])
def test_a_run_gets_three_pictures_that_are_not_blank(example: Example, stage: str) -> None:
    run_uri = example.uri if stage == "pretrain" else example.student
    uris = pictures.write(run_uri)
    assert uris == [f"{run_uri}/pictures/{name}.png" for name in ("health", "map", "clusters")]
    for uri in uris:
        pixels = imread(io.BytesIO(Path(uri).read_bytes()), format="png")
        assert min(pixels.shape[:2]) > 300
        assert pixels[..., :3].std() > 0.05


def test_a_run_without_an_assignment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not the folder of a run"):
        pictures.write(str(tmp_path))
    Run(str(tmp_path)).open(PretrainConfig(), {"num_clips": 1})
    with pytest.raises(FileNotFoundError, match="holds no assignment"):
        _ = RunReader(str(tmp_path)).assignment


def test_an_assignment_that_is_being_written_does_not_count_yet(tmp_path: Path) -> None:
    Run(str(tmp_path)).open(PretrainConfig(), {"num_clips": NUM_CLIPS})
    unfinished = tmp_path / "assignments" / "epoch-0001" / "head-0.parquet"
    unfinished.parent.mkdir(parents=True)
    unfinished.write_bytes(b"the first of several files")
    assert not RunReader(str(tmp_path)).has_assignment
    write_assignment(str(tmp_path / "assignments" / "epoch-0000"), _assignment(0))
    run = RunReader(str(tmp_path))
    assert run.has_assignment and run.assignment.epoch == 0


def _panels(uri: str) -> dict[str, tuple[str, list[list[float]]]]:
    """What the picture of a run's health says: note and curve, by heading."""
    run = RunReader(uri)
    axes = draw_health("run", run.history(), view_of(run).metrics).axes
    return {
        axis.get_title(loc="left").strip(): (
            axis.texts[0].get_text(),
            [point for line in axis.lines for point in line.get_xydata().tolist()],
        )
        for axis in axes
    }


def test_health_of_a_pretraining_draws_its_loss_and_its_clusters(example: Example) -> None:
    panels = _panels(example.uri)
    assert panels["loss"] == (f"cross entropy; a blind guess is {np.log(5):.2f}", [[0, 1.6], [1, 1.2]])
    assert panels["stability"][1] == [[1, 0.75]]
    assert panels["effective rank"] == ("directions used, of 8; near 1 is collapse", [[0, 7.5], [1, 6.5]])


def test_health_of_a_distillation_draws_its_four_terms_with_their_weights(example: Example) -> None:
    panels = _panels(example.student)
    curves_by_heading = {heading: [value for _, value in curve] for heading, (_, curve) in panels.items()}
    assert curves_by_heading == {
        "loss": [9.5, 2.5],
        "cross entropy of the teacher": [3.25, 0.75],
        "cross entropy of the branches": [8, 2],
        "KL, teacher ‖ branches": [1.5, 1],
        "MSE, teacher and branches": [4, 3],
        "agreement of the teacher": [0.125, 0.75],
        "learning rate": [],
        "speed": [50, 60],
    }
    assert f"blind guess is {np.log(5):.2f}" in panels["cross entropy of the teacher"][0]
    assert "α = 0.6 " in panels["cross entropy of the branches"][0]
    assert "1 - α = 0.4 " in panels["KL, teacher ‖ branches"][0]
    assert "of logits, summed; × β = 0.25 " in panels["MSE, teacher and branches"][0]


def test_each_head_has_its_own_curve() -> None:
    history = [{"epoch": 3.0, "head0/inertia": 1.0, "head1/inertia": 2.0, "inertia_of_something": 9.0}]
    assert curves(history, "inertia") == {"head0": ([3], [1.0]), "head1": ([3], [2.0])}


def test_map_of_a_distillation_shows_what_its_student_hears_by_label_and_pseudo_label(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, Any] = {}

    def project(embeddings_ND: np.ndarray) -> np.ndarray:
        drawn["embeddings"] = embeddings_ND
        return embeddings_ND[:, :2]

    def draw(title: str, positions_N2: np.ndarray, groupings: list[Grouping]) -> Figure:
        drawn.update(title=title, groupings=groupings)
        return draw_map(title, positions_N2, groupings)

    monkeypatch.setattr(pictures, "project", project)
    monkeypatch.setattr(pictures, "draw_map", draw)
    pictures.write(example.student)
    student = load_student(example.student)
    assert len(drawn["embeddings"]) == DAMAGED  # all before the damaged clip, which is the last
    for clip_id in (0, 7, 43):
        alone = student.embed(example.waves[clip_id], RATE)[0]
        np.testing.assert_allclose(drawn["embeddings"][clip_id], alone, rtol=1e-4, atol=1e-5)
    by_label, by_pseudo_label = drawn["groupings"]
    assert by_label.names == ["hiss", "hum"]
    assert by_label.ids[:6].tolist() == [1, 0, -1, 1, 0, -1]
    assert by_pseudo_label.names == [f"pseudo-label {i}" for i in range(NUM_CLUSTERS)]
    assert by_pseudo_label.ids.tolist() == np.repeat(np.arange(NUM_CLUSTERS), [15, 12, 9, 6, 2]).tolist()
    assert drawn["title"].startswith("44 clips of hum-student, as its student hears them")
    assert "labels were never trained on" in drawn["title"]


@given(label_ids=st.lists(st.integers(-1, 29), min_size=1, max_size=80))
def test_the_most_common_labels_are_named_and_the_rest_is_not(label_ids: list[int]) -> None:
    names = [f"{29 - i:02d}" for i in range(30)]
    grouping = by_class("by label", np.array(label_ids), names)
    present = set(label_ids) - {-1}
    assert len(grouping.names) == min(len(present), MAX_NAMED)
    assert list(grouping.names) == sorted(grouping.names)
    assert ("most common" in grouping.title) == (len(present) > MAX_NAMED)
    for label, place in zip(label_ids, grouping.ids, strict=True):
        assert place == -1 or grouping.names[place] == names[label]
    counts = {label: label_ids.count(label) for label in present}
    named = [counts[label] for label in present if names[label] in grouping.names]
    unnamed = [counts[label] for label in present if names[label] not in grouping.names]
    assert max(unnamed, default=0) <= min(named, default=0)
    assert (grouping.ids >= 0).sum() == sum(named)


def test_projection_keeps_groups_apart_and_repeats() -> None:
    rng = np.random.default_rng(0)
    embeddings = np.concatenate([rng.normal(centre, 0.1, (30, 12)) for centre in np.eye(3, 12)])
    positions = project(embeddings)
    np.testing.assert_array_equal(positions, project(embeddings))
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1) + 1e9 * np.eye(90)
    assert ((distances.argmin(axis=1) // 30) == np.arange(90) // 30).all()


@given(
    sizes=st.lists(st.integers(0, 20), min_size=1, max_size=30).filter(any),
    num_without=st.integers(0, 30),
    num_shown=st.integers(1, 10),
)
def test_shown_clusters_spread_from_the_largest_to_the_smallest(
    sizes: list[int], num_without: int, num_shown: int
) -> None:
    clusters = np.repeat(np.arange(-1, len(sizes)), [num_without, *sizes])
    shown = pictures.spread_clusters(clusters, num_shown)
    filled = sorted((size for size in sizes if size), reverse=True)
    assert len(set(shown.tolist())) == len(shown) == min(num_shown, len(filled))
    found = [sizes[cluster] for cluster in shown]
    assert found == sorted(found, reverse=True)
    assert found[0] == filled[0]
    if len(shown) > 1:
        assert found[-1] == filled[-1]


def test_sheet_shows_the_clips_nearest_to_each_centroid_as_far_as_they_can_be_read(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sheets: list[list[SheetRow]] = []

    def draw(title: str, rows: list[SheetRow], front_end: FrontEndConfig) -> Figure:
        sheets.append(rows)
        return draw_sheet(title, rows, front_end)

    monkeypatch.setattr(pictures, "draw_sheet", draw)
    _prepare(tmp_path, example.waves, damaged=12)
    _write_run(str(tmp_path / "run"), str(tmp_path))
    pictures.write(str(tmp_path / "run"))
    (sheet,) = sheets
    assert [len(row.log_mels) for row in sheet] == [6, 6, 6, 6, 3]
    # Clips 0 to 14, five of each kind; the distances fall with the id. 14 is without a label, 13 a hiss, 12 a hum.
    assert sheet[0].title == "cluster 0\n15 clips\n50% hum"
    assert sheet[0].captions == ["", "hiss", "hum"] * 2
    assert [log_mel is None for log_mel in sheet[0].log_mels] == [False, False, True, False, False, False]
    expected = load_encoder(example.uri).log_mel(torch.from_numpy(example.waves[14])[None])[0].numpy()
    np.testing.assert_allclose(sheet[0].log_mels[0], expected, rtol=1e-4, atol=1e-5)


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


def test_summary_of_a_distillation_says_what_its_student_learnt_and_costs(example: Example) -> None:
    text = _text(summary(example.student))
    for part in (
        "state finished",
        "2 of 2 epochs",
        f"clips {NUM_CLIPS}",
        "loss 9.500 → 2.500",
        "cross entropy of the teacher 3.250 → 0.750",
        "cross entropy of the branches 8.000 → 2.000",
        "KL of the branches 1.500 → 1.000",
        "MSE of the branches 4.000 → 3.000",
        "agreement with the pseudo-labels 0.12 → 0.75",
        "pseudo-labels 5 clusters of the teacher hum, NMI with the labels 0.31",
        "student the network up to fc1: 1,125,504 parameters (79 % fewer than 5,321,856)",
        "90.5 million multiply–adds per second of audio (the whole encoder: 143)",
        f"{example.student}/checkpoints/e0002-s000000",
        f"{example.student}/student",
        f"{example.student}/pseudo-labels",
    ):
        assert part in text
    assert "empty clusters" not in text and "effective rank" not in text


@pytest.mark.parametrize(
    ("origin", "text", "trained_on"),
    [
        ("random", "5 clusters of a random encoder, NMI", False),
        ("shuffled", "5 clusters of the teacher hum, dealt out at random, NMI", False),
        ("true", "5 true classes, NMI", True),
    ],
)
def test_a_distillation_for_analysis_says_where_its_labels_are_from(
    tmp_path: Path, origin: str, text: str, trained_on: bool
) -> None:
    _write_distillation(str(tmp_path), "data", origin=origin)
    run = RunReader(str(tmp_path))
    view = view_of(run)
    assert standing(run)["pseudo-labels"].startswith(text)
    assert ("never trained on" in view.labels_note) != trained_on
    assert view.has_distances == (origin == "random")


def test_summary_of_a_distillation_that_has_just_begun_claims_nothing(tmp_path: Path) -> None:
    Run(str(tmp_path)).open(DistillConfig(), {"num_clips": 9})
    text = _text(summary(str(tmp_path)))
    assert "0 of 20 epochs" in text
    assert "pseudo-labels" not in text and "student" not in text
    assert not any("blind guess" in metric.note for metric in view_of(RunReader(str(tmp_path))).metrics)


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


def test_a_run_of_another_version_is_named_and_does_not_hide_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("old", "new"):
        Run(str(tmp_path / name)).open(PretrainConfig(name=name), {"num_clips": 9})
    old = tmp_path / "old" / "run.json"
    old.write_text(old.read_text().replace('"format_version": 2', '"format_version": 1'))
    assert "new died" in _text(runs_table(str(tmp_path)))
    assert f"{old} has format_version 1, this version reads 2" in caplog.text
