"""Protocols, tasks and models as users give them are read whole, or refused with the reason."""

from __future__ import annotations

import hashlib
import json
import logging
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from support.evaluations import evaluated
from support.sources import write_source
from support.tasks import PROTOCOL, repeat_first_clip, replace_columns, write_encoder, write_task

from unfused_ray.config import EncoderConfig, EvaluateConfig, FrontEndConfig, TrainingConfig
from unfused_ray.evaluation.protocol import load_protocol
from unfused_ray.evaluation.systems import absolute_model, parse_model
from unfused_ray.evaluation.tasks import Task, load_task, refuse_shared
from unfused_ray.evaluation_job import plan as evaluation_plan
from unfused_ray.recipes import DISTILL, PRETRAIN


def test_the_packages_protocol_is_that_of_the_method_and_known_by_the_hash_of_its_file() -> None:
    protocol = load_protocol()
    config = protocol.config
    assert config.readout == "last"
    assert config.probes.linear.strengths == (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    file = resources.files("unfused_ray.evaluation").joinpath("protocol.toml").read_bytes()
    assert protocol.sha256 == hashlib.sha256(file).hexdigest()


@pytest.mark.parametrize("config", [recipe for _, recipe in (*PRETRAIN.values(), *DISTILL.values())])
def test_short_clips_are_completed_in_training_as_the_protocol_reads_them(config: TrainingConfig) -> None:
    assert config.crop.short_clips == load_protocol().config.short_clips


def test_another_protocol_is_read_from_its_file_and_a_comment_changes_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(PROTOCOL)
    protocol = load_protocol(str(path))
    assert (protocol.config.crop_seconds, protocol.config.bootstrap.replicates) == (0.31, 200)
    path.write_text(PROTOCOL + "# said\n")
    assert load_protocol(str(path)).config == protocol.config
    assert load_protocol(str(path)).sha256 != protocol.sha256


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("folds = 2", "", "probes.folds: Field required"),
        ("[bootstrap]\nreplicates = 200\nseed = 0", "", "bootstrap: Field required"),
        ("seed = 0", "seed = 0\nsede = 1", "bootstrap.sede=1: Extra inputs are not permitted"),
        ("folds = 2", "folds = 1", "probes.folds=1: Input should be greater than or equal to 2"),
        ("strengths = [0.01, 1.0]", "strengths = []", "probes.linear.strengths=[]: Tuple should have at least 1 item"),
        ("count = 3", "count = 0", "probes.neighbours.count=0: Input should be greater than or equal to 1"),
        ("draws = 2", "draws = 0", "probes.few_shot.draws=0: Input should be greater than or equal to 1"),
        ("clips_per_class = 2", "", "probes.few_shot.clips_per_class: Field required"),
        ("strength = 0.01", "strength = 0", "probes.few_shot.strength=0: Input should be greater than 0"),
        ('"last"', '["last"]', "readout=['last']: Input should be 'last', 'blocks' or 'both'"),
        ('"last"', '"first"', "readout='first': Input should be 'last', 'blocks' or 'both'"),
        ('readout = "last"', 'readouts = ["last"]', "readouts=['last']: Extra inputs are not permitted"),
        ('"tile"', '"loop"', "short_clips='loop': Input should be 'centre' or 'tile'"),
        ("crop_seconds = 0.31", "crop_seconds = -1", "crop_seconds=-1: Input should be greater than 0"),
        ("seed = 0", "seed = ", "is no TOML file"),
    ],
)
def test_what_is_missing_unknown_or_impossible_in_a_protocol_is_named(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "mine.toml"
    assert old in PROTOCOL
    path.write_text(PROTOCOL.replace(old, new))
    with pytest.raises(ValueError, match=r"protocol=.*mine\.toml") as error:
        load_protocol(str(path))
    assert message in str(error.value)


def test_all_mistakes_of_a_protocol_are_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("crop_seconds = 1.0\n")
    with pytest.raises(ValueError, match=r"(?s)short_clips: .*readout: .*probes: .*bootstrap: "):
        load_protocol(str(path))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_protocol(str(tmp_path / "nowhere"))


def test_a_task_has_classes_splits_and_groups_by_clip_id(tmp_path: Path) -> None:
    groups = ["a", "b", "b", "", "c", ""]
    labels = [["wet"], ["dry"], ["icy"], ["wet"], ["dry"], ["icy"]]
    task = load_task(write_task(tmp_path / "weather", 3, 1, 2, group=groups, labels=labels))
    assert (task.name, task.class_names) == ("weather", ["dry", "icy", "wet"])
    assert task.class_ids.tolist() == [2, 0, 1, 2, 0, 1]
    assert task.splits.tolist() == ["train", "train", "train", "valid", "test", "test"]
    assert task.groups.tolist() == groups
    assert task.training.num_clips == 3


def test_clips_of_other_splits_are_no_part_of_a_task(tmp_path: Path) -> None:
    write_source(tmp_path, [[3], [2], [4]], splits=["train", "", "test"])
    replace_columns(tmp_path, labels=[[str(clip % 3)] for clip in range(9)])
    task = load_task(str(tmp_path))
    assert task.splits.tolist() == ["train"] * 3 + ["test"] * 4
    (remark,) = task.remarks
    assert remark.endswith(": clips in no split of an evaluation are left out: 2 of split ''")


def test_clips_beside_folds_are_left_out_by_name(tmp_path: Path) -> None:
    write_source(tmp_path, [[6], [6], [6], [5]], splits=["fold1", "fold2", "fold3", "extra"])
    replace_columns(tmp_path, labels=[[str(clip % 2)] for clip in range(23)])
    task = load_task(str(tmp_path))
    assert (len(task.folds), task.left_out) == (3, {"extra": 5})


@pytest.mark.parametrize(
    ("sizes", "columns", "message"),
    [
        ((8, 4, 4), {"labels": [["a"]] * 16}, "all 8 training clips of a probe are of one class, a: there is nothing"),
        ((8, 0, 4), {"group": ["g"] * 8 + [""] * 4}, "2 folds that are held out in turn need as many groups of clips"),
        (
            (8, 0, 4),
            {"labels": [[str(clip % 8)] for clip in range(12)]},
            "2 folds that are held out in turn need as many clips of a class",
        ),
    ],
)
def test_a_task_that_no_probe_can_take_is_refused_by_name_before_vectors_are_made(
    tmp_path: Path, sizes: tuple[int, int, int], columns: dict[str, Any], message: str
) -> None:
    (tmp_path / "protocol.toml").write_text(PROTOCOL)
    good, bad = write_task(tmp_path / "good", 24, 12, 4), write_task(tmp_path / "bad", *sizes, **columns)
    config = EvaluateConfig(tasks=(good, bad), protocol=str(tmp_path / "protocol.toml"))
    with pytest.raises(ValueError, match=f"tasks={bad}: {message}"):
        evaluation_plan.check(config)


def test_a_run_of_another_version_is_refused_before_vectors_are_made(tmp_path: Path) -> None:
    """Its encoder alone is taken; beside the run's record it would be refused at the end, when the table is tracked."""
    (tmp_path / "protocol.toml").write_text(PROTOCOL)
    config = EvaluateConfig(
        tasks=(write_task(tmp_path / "task", 24, 12, 4),),
        protocol=str(tmp_path / "protocol.toml"),
        models=(f"old={write_encoder(tmp_path / 'run' / 'encoder', 'fc1')}",),
    )
    evaluation_plan.check(config)
    (tmp_path / "run" / "run.json").write_text(json.dumps({"id": "a", "config": {}}))
    with pytest.raises(
        ValueError, match=r"models=.*encoder: .*train the run anew .* copy the network's own folder out"
    ):
        evaluation_plan.check(config)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (["train", "valid"], "has no split test, only train, valid"),
        (["valid", "test"], "has no split train, only valid, test"),
        (["valid", ""], "has no split train and no split test, only valid"),
        (["", ""], "select no clip of"),
    ],
)
def test_a_task_without_training_or_test_clips_is_refused(tmp_path: Path, splits: list[str], message: str) -> None:
    write_source(tmp_path, [[2], [2]], splits=splits)
    with pytest.raises(ValueError, match=message) as error:
        load_task(str(tmp_path))
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("labels", [[], ["x", "y"]])
def test_clips_without_exactly_one_label_are_refused_by_name(tmp_path: Path, labels: list[str]) -> None:
    uri = write_task(tmp_path, 3, 0, 2, labels=[["x"], ["y"], labels, ["x"], labels])
    message = rf"2 of 5 clips without exactly one label \(the first is clip-2, with {len(labels)}\)"
    with pytest.raises(ValueError, match=message):
        load_task(uri)


@pytest.mark.parametrize(
    ("groups", "warned"),
    [
        (["a", "a", "b", "a", "c"], "1 group is in test and in another split (a …)"),
        (["a", "a", "b", "b", "b"], "1 group is in test and in another split (b …)"),
        (["a", "a", "a", "b", "b"], ""),
        (["", "", "", "", ""], ""),
    ],
)
def test_a_group_that_is_in_test_and_elsewhere_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, groups: list[str], warned: str
) -> None:
    with caplog.at_level(logging.WARNING):
        task = load_task(write_task(tmp_path, 2, 1, 2, group=groups))
    assert warned in caplog.text
    assert bool(caplog.text) == bool(warned) == bool(task.remarks)
    assert all(warned in remark for remark in task.remarks)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            ["0", "1", "0", "0.0", "1.0"],
            r"split test of .* its training clips lack: 0\.0, 1\.0; train has 0, 1\.",
        ),
        (["0", "1", "1.0", "0", "1"], r"split valid of .* that its training clips lack: 1\.0; train has 0, 1\."),
        (["0", "1", "0", "1", "2"], r"split test of .* that its training clips lack: 2; train has 0, 1\."),
        (["0", "1", "0", "1", "1"], ""),
    ],
)
def test_classes_that_no_training_clip_has_are_refused_with_both_lists(
    tmp_path: Path, labels: list[str], message: str
) -> None:
    uri = write_task(tmp_path, 2, 1, 2, labels=[[label] for label in labels])
    if message:
        with pytest.raises(ValueError, match=rf"tasks={tmp_path}: {message}"):
            load_task(uri)
    else:
        assert load_task(uri).class_names == ["0", "1"]


def test_classes_are_compared_in_each_round_of_folds(tmp_path: Path) -> None:
    write_source(tmp_path, [[2], [2], [2], [2]], splits=["fold1", "fold2", "fold3", "fold4"])
    uri = replace_columns(tmp_path, labels=[[label] for label in "abababac"])
    with pytest.raises(ValueError, match=r"split valid of .*-fold3 has classes that its training clips lack: c"):
        load_task(uri)


@pytest.mark.parametrize(("clip_id", "pairs"), [(1, []), (9, ["valid"]), (13, ["test"])])
def test_recordings_in_two_splits_are_found(tmp_path: Path, clip_id: int, pairs: list[str]) -> None:
    write_task(tmp_path, 8, 4, 4)
    task = load_task(repeat_first_clip(tmp_path, clip_id))
    assert [(pair.first, pair.second, pair.clips) for pair in task.shared] == [(split, "train", 1) for split in pairs]
    if "test" in pairs:
        with pytest.raises(
            ValueError, match=r"1 clips of test are in train too, such as clip-13, which is clip-0 there\. .*--shared"
        ):
            refuse_shared(task)
    else:
        refuse_shared(task)


def test_recordings_in_two_folds_are_refused(tmp_path: Path) -> None:
    write_source(tmp_path, [[8], [8], [8]], splits=["fold1", "fold2", "fold3"])
    with pytest.raises(ValueError, match=r"1 clips of fold1 are in fold3 too, such as clip-0, which is clip-16 there"):
        refuse_shared(load_task(repeat_first_clip(tmp_path, 16)))


@pytest.mark.parametrize(
    ("text", "name", "path"),
    [
        ("/runs/first", "first", "/runs/first"),
        ("mine=/runs/first", "mine", "/runs/first"),
        ("/runs/first/encoder", "first", "/runs/first/encoder"),
        ("/runs/first/student/", "first", "/runs/first/student"),
        ("student=/runs/{task}-a", "student", "/runs/{task}-a"),
        ("s3://b/run?scheme=http&region=x", "run", "s3://b/run?scheme=http&region=x"),
        ("mine=s3://b/run/student?scheme=http", "mine", "s3://b/run/student?scheme=http"),
        ("s3://b/run/student?scheme=http", "run", "s3://b/run/student?scheme=http"),
    ],
)
def test_a_model_is_named_on_the_command_line_by_name_or_by_its_folder(text: str, name: str, path: str) -> None:
    model = parse_model(text)
    assert (model.name, model.path) == (name, path)


def test_relative_paths_of_models_are_those_of_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert parse_model("mine=runs/x").path == "/runs/x"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mine=runs/x", "mine=/a/runs/x"),
        ("runs/x", "/a/runs/x"),
        ("../runs/b=1", "/runs/b=1"),
        ("mine=model.onnx", "mine=/a/model.onnx"),
        ("mine=package:make", "mine=package:make"),
        ("mine=s3://b/run?scheme=http", "mine=s3://b/run?scheme=http"),
    ],
)
def test_a_model_with_an_absolute_path_is_the_same_model_anywhere(
    monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    monkeypatch.setattr("os.getcwd", lambda: "/a")
    assert absolute_model(text) == expected
    model = parse_model(text)
    monkeypatch.setattr("os.getcwd", lambda: "/b")
    assert parse_model(expected) == model


def test_an_evaluation_keeps_the_places_of_its_models_not_their_places_in_its_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "protocol.toml").write_text(PROTOCOL)
    task, uri = write_task(tmp_path / "task", 24, 12, 4), write_encoder(tmp_path / "run" / "encoder", "fc1")
    monkeypatch.chdir(tmp_path)
    config = EvaluateConfig(tasks=(task,), protocol=str(tmp_path / "protocol.toml"), models=("x=run/encoder",))
    assert evaluation_plan.check(config).config.models == (f"x={uri}",)


@pytest.mark.parametrize(
    ("name", "fits"), [("é" * 100, True), ("é" * 101, False), ("x\udcff", False)], ids=["100", "101", "no UTF-8"]
)
def test_names_of_rows_that_no_file_can_have_are_refused_before_vectors_are_made(
    tmp_path: Path, name: str, fits: bool
) -> None:
    uri = write_encoder(tmp_path / "run" / "encoder", "fc1")
    task = write_task(tmp_path / "task", 16, 8, 4)
    if fits:
        evaluated(tmp_path, task, f"{name}={uri}")
        assert (tmp_path / "out" / "task" / f"{name}-confusion.png").exists()
    else:
        with pytest.raises(ValueError, match="must be UTF-8 text of at most 200 bytes"):
            evaluated(tmp_path, task, f"{name}={uri}")


def test_each_task_has_its_own_student_where_the_path_says_so(tmp_path: Path) -> None:
    tasks: list[Task] = []
    for name, cut in (("a", "fc1"), ("b", "block2")):
        tasks.append(load_task(write_task(tmp_path / name, 2, 0, 2)))
        write_encoder(tmp_path / f"{name}-run" / "student", cut)
    model = parse_model(f"student={tmp_path}/{{task}}-run")
    shapes = [EncoderConfig(channels=4, width=16, cut="fc1"), EncoderConfig(channels=4, width=16, cut="block2")]
    assert [model.shape(task) for task in tasks] == [(shape, FrontEndConfig()) for shape in shapes]
    assert model.identity(tasks[0]) != model.identity(tasks[1])
