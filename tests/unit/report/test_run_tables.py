"""Tables for the terminal show what the folders of runs hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import RenderableType
from support.finished_runs import NUM_CLIPS, Example, commit, write_distillation
from support.terminal import text_of

from unfused_ray.config import (
    CropConfig,
    DistillConfig,
    EncoderConfig,
    FrontEndConfig,
    PretrainConfig,
    WatchConfig,
)
from unfused_ray.figures.metrics import view_of
from unfused_ray.lease import Lease
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.models.export import save_encoder
from unfused_ray.report.facts import standing
from unfused_ray.report.terminal import runs_table, summary
from unfused_ray.runs.checkpoints import Position
from unfused_ray.runs.reader import RunReader
from unfused_ray.runs.run import Run
from unfused_ray.runs.status import Status
from unfused_ray.runs.watched import names


def _text(table: RenderableType) -> str:
    """Return the text of a table with single spaces."""
    return " ".join(text_of(table).split())


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
        "student the network up to fc1: 1,125,504 parameters (79 % fewer than the whole network's 5,321,856)",
        "90.5 million multiply–adds per second of audio (whole: 143)",
        f"{example.student}/checkpoints/e0002-s000000",
        f"{example.student}/student",
        f"{example.student}/pseudo-labels",
    ):
        assert part in text
    assert "empty clusters" not in text and "effective rank" not in text


def test_a_summary_says_what_was_watched_what_it_took_and_what_was_exported(tmp_path: Path) -> None:
    data = ("s3://bucket/drums", "s3://bucket/letters")
    watch = WatchConfig(data=data, every=1, export="best", measure="few-shot")
    run = Run(str(tmp_path))
    run.open(PretrainConfig(watch=watch, epochs=3), {"num_clips": 9})
    tasks, accuracies = ("drums", "letters"), ((0.5, 0.25), (0.75, 0.5), (0.5, 0.5))
    entries = [
        {
            "epoch": float(epoch),
            "seconds_train": 20.0,
            "seconds_watch": 1.0,
            **dict.fromkeys(names(tasks), 0.25),
            **{f"watch/{task}/few-shot": value for task, value in zip(tasks, of_epoch, strict=True)},
        }
        for epoch, of_epoch in enumerate(accuracies)
    ]
    run.write_history(entries)
    seen = {"measure": "few-shot", "accuracy": 0.625}
    encoder = AudioNTT2020(EncoderConfig(channels=4, width=16), 64)
    front_end, crop = FrontEndConfig(), CropConfig()
    save_encoder(f"{tmp_path}/encoder", encoder, front_end, crop, 0.0, 1.0, {"epochs": 2, "watched": seen})
    facts = standing(RunReader(str(tmp_path)))
    assert facts["watched, few-shot"] == "37.5% → 50.0%, best 62.5% after epoch 2; random networks 25.0%"
    assert facts["looks"] == "3, at validation clips of drums, letters; took 5.0% of the time of training"
    assert facts["exported"] == "after 2 epochs, the best few-shot: 62.5%"


def test_a_small_student_is_compared_with_its_own_network_and_not_with_the_papers(tmp_path: Path) -> None:
    shape, front_end = EncoderConfig(channels=32, width=256, cut="fc1"), FrontEndConfig()
    save_encoder(f"{tmp_path}/student", AudioNTT2020(shape, 64), front_end, CropConfig(), 0.0, 1.0, {})
    run = Run(str(tmp_path))
    run.open(DistillConfig(teacher="/t"), {"num_clips": 9})
    count, whole = (sum(p.numel() for p in AudioNTT2020(s, 64).parameters()) for s in (shape, shape.replace(cut="fc2")))
    saving = f"({100 * (1 - count / whole):.0f} % fewer than the whole network's {whole:,})"
    assert f"the network up to fc1: {count:,} parameters {saving}" in standing(RunReader(str(tmp_path)))["student"]


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
    write_distillation(str(tmp_path), "data", origin=origin)
    run = RunReader(str(tmp_path))
    view = view_of(run)
    assert standing(run)["pseudo-labels"].startswith(text)
    assert ("not used in training" in view.labels_note) != trained_on
    assert view.has_distances == (origin == "random")


def test_summary_of_a_distillation_that_has_just_begun_claims_nothing(tmp_path: Path) -> None:
    Run(str(tmp_path)).open(DistillConfig(), {"num_clips": 9})
    text = _text(summary(str(tmp_path)))
    assert "0 of 20 epochs" in text
    assert "pseudo-labels" not in text and "student" not in text
    assert not any("blind guess" in metric.note for metric in view_of(RunReader(str(tmp_path))).metrics)


def test_a_running_run_whose_process_is_gone_has_died(tmp_path: Path) -> None:
    uri = str(tmp_path / "runs" / "second")
    run = Run(uri)
    run.open(PretrainConfig(name="second", epochs=7), {"num_clips": 9})
    (tmp_path / "runs" / "no run").mkdir()
    with Lease(uri, on_loss=lambda: None):
        assert "second starting 0 of 7 epochs none" in _text(runs_table(str(tmp_path / "runs")))
        run.write_status(Status("running", 0, 0))
        assert "second running" in _text(runs_table(str(tmp_path / "runs")))
    commit(uri, Position(3, 20))
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
