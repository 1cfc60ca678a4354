"""The origins that a run names in MLflow, and its count of metrics that MLflow never got."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from support.runs import tiny, tiny_student, tracked, train
from support.sources import write_source
from support.tasks import write_encoder

from unfused_ray import api, storage
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.models.export import read_description
from unfused_ray.runs import provenance
from unfused_ray.runs.checkpoints import CheckpointStore, Position
from unfused_ray.runs.run import Run
from unfused_ray.tracking import mlflow
from unfused_ray.tracking import mlflow as tracking
from unfused_ray.tracking import sender as tracker


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    write_source(folder, [[32], [16]], (3_000, 6_000), ("train", "valid"))
    return folder


def test_a_student_names_its_teacher_and_a_run_that_goes_on_after_its_end_stays_one_run(
    source: Path, tmp_path: Path, tracking_uri: str
) -> None:
    teacher, student = tiny(source, tmp_path / "teacher", tracking_uri), str(tmp_path / "student")
    assert api.pretrain(teacher, epochs=1).status.state == "finished"  # adds pictures and folders at its end
    assert train(teacher).state == "finished"
    run = tracked(tracking_uri, teacher.output)
    assert run.info.status == "FINISHED"
    assert run.data.tags["unfused_ray.folder"] == teacher.output
    assert run.data.tags["unfused_ray.encoder"] == f"{teacher.output}/encoder"
    assert json.loads(run.data.tags["unfused_ray.data"]) == [
        {"uri": str(source), "checksum": ClipIndex.load(teacher.data, teacher.splits).checksums[0]}
    ]

    job = tiny_student(source, Path(student), tracking_uri, teacher=teacher.output, stop_after=1)
    assert train(job).state == "stopped"
    run = tracked(tracking_uri, student)
    assert run.info.status == "FINISHED"  # it ended where it should
    assert json.loads(run.data.tags["unfused_ray.upstream"]) == [
        {
            "uri": teacher.output,
            "sha256": read_description(teacher.output)["sha256"],
            "run": Run(teacher.output).record()["id"],
        }
    ]


def test_a_run_that_begins_with_a_checkpoint_names_it(source: Path, tmp_path: Path) -> None:
    folder = str(tmp_path / "run")
    assert provenance.upstream(folder) == {"uri": folder}
    write_encoder(Path(folder, "encoder"), "fc2")
    export = {"uri": folder, "sha256": read_description(folder)["sha256"]}
    assert provenance.upstream(folder) == export
    store = CheckpointStore(folder)
    begun = store.begin(Position(1, 0))
    store.commit(Position(1, 0), {}, {})
    checkpoint = store.newest()
    checkpointed = {"uri": folder, "sha256": storage.sha256_file(storage.join(begun, "manifest.json"))}
    warm = tiny_student(source, tmp_path / "student", "", init_from=folder, teacher=folder)
    assert provenance.origins(warm, checkpoint) == [checkpointed, export]
    assert provenance.origins(tiny(source, tmp_path / "fork", "", fork=folder), checkpoint) == [checkpointed]


def test_a_tag_of_many_networks_is_json_that_says_how_many_are_left_out() -> None:
    networks = [{"uri": f"s3://bucket/run-{number}", "sha256": 64 * "0"} for number in range(80)]
    tag = mlflow.tags("evaluate", "folder", upstream=networks)["unfused_ray.upstream"]
    *named, rest = json.loads(tag)
    assert 4_500 < len(tag) <= tracking.MAX_TAG
    assert named == networks[: len(named)] and rest == {"left_out": 80 - len(named)}


def test_a_run_whose_figures_reach_nobody_ends_well_and_counts_them(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracker, "CLOSE_SECONDS", 0.1)
    job = tiny(source, tmp_path / "run", "http://127.0.0.1:9", epochs=1)  # no server listens
    with caplog.at_level(logging.WARNING):
        assert train(job).state == "finished"
    status = Run(job.output).status()
    assert status is not None and status.lost_metrics > 0
    assert f"{status.lost_metrics} metrics did not reach the tracking server" in caplog.text
