"""Whole evaluations of tiny tasks: outputs agree, choices are made without test clips, cells are kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from mlflow import MlflowClient
from rich.console import Console
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, recall_score
from support.probes import naive_probe
from support.processes import kill_child, wait_for
from support.tasks import PROTOCOL, repeat_first_clip, replace_columns, write_encoder, write_task
from support.terminal import Ended

from unfused_ray import storage
from unfused_ray.config import EvaluateConfig, FrontEndConfig, TrackingConfig
from unfused_ray.data.parts.executor import IN_PROCESS
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.embedding import cache as cache_module
from unfused_ray.evaluation import bootstrap, cells, filling
from unfused_ray.evaluation.bootstrap import Interval
from unfused_ray.evaluation.cells import MEASURES
from unfused_ray.evaluation.probes import probe as probe_module
from unfused_ray.evaluation.probes.clips import Part
from unfused_ray.evaluation.probes.neighbours import neighbour_scores
from unfused_ray.evaluation.probes.probe import probe
from unfused_ray.evaluation.rows import Row
from unfused_ray.evaluation.systems import TrainedModel
from unfused_ray.evaluation.table import EvaluationTable
from unfused_ray.evaluation_job import job as evaluation_job
from unfused_ray.evaluation_job import plan as evaluation_plan
from unfused_ray.evaluation_job import tracked as evaluation_tracked
from unfused_ray.models.export import read_description
from unfused_ray.models.frozen import FrozenEncoder
from unfused_ray.report.evaluation import evaluation_table

ROWS = ["log-mel statistics", "random fc2 (4 × 16)", "random fc1 (4 × 16)", "teacher", "student"]
SIZES = {"grouped": (32, 16, 23), "bare": (24, 0, 14)}
ENDS = ("low", "high")
PNG = b"\x89PNG\r\n"


def noisy_labels(num_clips: int) -> list[list[str]]:
    """Return four classes that can be heard; every third clip has a random class."""
    rng = np.random.default_rng(0)
    return [[f"class {rng.integers(4) if clip % 3 == 0 else clip % 4}"] for clip in range(num_clips)]


@dataclass(frozen=True)
class World:
    """A folder with two tasks, a pre-trained encoder and a student for each task."""

    folder: Path

    @classmethod
    def write(cls, folder: Path) -> World:
        for name, sizes in SIZES.items():
            groups = [f"{name} {clip // 2}" for clip in range(sum(sizes))] if name == "grouped" else [""] * sum(sizes)
            write_task(folder / name, *sizes, labels=noisy_labels(sum(sizes)), group=groups)
            write_encoder(folder / f"{name}-run" / "student", "fc1", seed=len(name))
        write_encoder(folder / "teacher" / "encoder", "fc2")
        (folder / "protocol.toml").write_text(PROTOCOL)
        return cls(folder)

    def config(self, output: Path | str, **fields: Any) -> EvaluateConfig:
        models = (f"{self.folder}/teacher", f"student={self.folder}/{{task}}-run")
        values = {
            "models": models,
            "tasks": tuple(str(self.folder / name) for name in SIZES),
            "output": str(output),
            "cache": storage.join(str(output), "embeddings"),
            "protocol": str(self.folder / "protocol.toml"),
            "random_seeds": 2,
            "processes": 1,  # two would take 4 s to start
        }
        return EvaluateConfig(**(values | fields))

    def run(self, output: Path | str, **fields: Any) -> EvaluationTable:
        return evaluation_job.run(evaluation_plan.check(self.config(output, **fields)))

    def cell(self, output: Path, task: str, row: str) -> dict[str, Any]:
        return json.loads((output / task / f"{row.replace(' ', '-')}.json").read_text())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.write(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def done(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of an evaluation of all models on both tasks; tests do not write to it."""
    output = tmp_path_factory.mktemp("done")
    world.run(output)
    return output


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of clips of each call of ``probe``."""
    calls: list[int] = []

    def counting(features: Any, labelled: Any, config: Any) -> Any:
        calls.append(len(labelled.class_ids))
        return probe(features, labelled, config)

    monkeypatch.setattr(cells, "probe", counting)
    return calls


def test_two_processes_fill_the_cells_that_one_does_and_those_that_a_killed_one_left(
    world: World, done: Path, tmp_path: Path
) -> None:
    def kill() -> None:
        wait_for(lambda: list(tmp_path.glob("*/*.json")))
        kill_child("loky", but="resource_tracker")

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(OSError, match=r"ended from outside.* processes=1"):
        world.run(tmp_path, processes=2)
    killer.join()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.json")}
    assert kept
    table = world.run(tmp_path, processes=2)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert [row.name for row in table.rows] == ROWS
    for name in sorted(path.relative_to(done) for path in done.glob("*/*.json")):
        one, two = (json.loads((output / name).read_text()) for output in (done, tmp_path))
        assert two["key"] == one["key"]
        for result, expected in zip(two["seeds"], one["seeds"], strict=True):
            for measure in MEASURES:
                found, wanted = (np.mean(each["scores"][measure]) for each in (result, expected))
                assert found == pytest.approx(wanted, abs=0.1)  # numbers of threads differ
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*.png")} == {
        path.relative_to(done) for path in done.rglob("*.png")
    }


def test_a_process_that_fills_cells_ends_with_the_one_that_waits_for_it() -> None:
    child = f"""{sys.executable} -c '
import os, time
from unfused_ray.evaluation.filling import end_with
end_with(os.getppid())
print(os.getpid(), flush=True)
time.sleep(600)' & wait"""
    with subprocess.Popen(["sh", "-c", child], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        process = psutil.Process(int(parent.stdout.readline()))
        time.sleep(1.5)
        assert process.is_running()
        parent.kill()
        parent.wait()
        process.wait(timeout=20)


def test_on_a_machine_with_a_gpu_all_is_embedded_before_cells_are_filled_without_one(
    world: World, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds, calls = ["cuda"], []
    embed_clips, fill = cache_module.embed_clips, evaluation_job.fill
    monkeypatch.setattr(cache_module, "_kind_here", lambda: kinds[-1])
    monkeypatch.setattr(FrozenEncoder, "to", lambda self, device: self)  # still computed on the processor

    def embedding(*arguments: Any) -> Any:
        calls.append("embed")
        return embed_clips(*arguments)

    def filling_without(*arguments: Any) -> Any:
        kinds.append("cpu")  # as in a process without a GPU
        calls.append("fill")
        return fill(*arguments)

    monkeypatch.setattr(cache_module, "embed_clips", embedding)
    monkeypatch.setattr(evaluation_job, "fill", filling_without)
    world.run(tmp_path / "output", tasks=(str(world.folder / "bare"),), random_seeds=1)
    assert calls == ["embed"] * 3 + ["fill"] * len(ROWS)  # one network for both random rows, and two models
    for row in ("log-mel statistics", "teacher", "student"):
        assert world.cell(tmp_path / "output", "bare", row) == world.cell(done, "bare", row)


def test_a_process_that_fills_cells_sees_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(filling, "end_with", lambda parent: None)
    for parent, seen in ((0, "0"), (1, "")):
        assert filling._fill_family(lambda task, system: None, parent, None, []) == {}  # type: ignore[arg-type]
        assert os.environ["CUDA_VISIBLE_DEVICES"] == seen


def test_trained_rows_are_compared_with_random_networks_of_their_shape_over_all_test_clips(
    world: World, done: Path
) -> None:
    margins = json.loads((done / "table.json").read_text())["margins"]
    pairs = {"teacher": "random fc2 (4 × 16)", "student": "random fc1 (4 × 16)"}
    assert {margin["row"]: margin["random"] for margin in margins} == pairs
    asked = json.loads((done / "evaluation.json").read_text())["asked"]
    assert asked == ["random fc1 (4 × 16)", "teacher", "student"]  # that of the last model's shape
    for margin in margins:
        for measure in MEASURES:
            clips = [
                np.concatenate(
                    [
                        np.mean([seed["scores"][measure] for seed in world.cell(done, task, row)["seeds"]], axis=0)
                        for task in SIZES
                    ]
                )
                for row in (margin["row"], margin["random"])
            ]
            interval = margin["difference"][measure]
            assert interval["value"] == pytest.approx(np.mean(clips[0] - clips[1]))
            ends = [np.quantile(over_tasks(world, done, margin, measure), end) for end in (0.025, 0.975)]
            assert [interval["low"], interval["high"]] == pytest.approx(np.clip(ends, -1, 1).tolist())
    text = EvaluationTable.load(str(done)).margins[0].text
    assert text in (done / "table.md").read_text()
    assert text.endswith(" points from random fc2 (4 × 16)")


def over_tasks(world: World, done: Path, margin: dict[str, str], measure: str) -> np.ndarray:
    """Return samples of a margin: each task's own, widened for its groups, weighted by its number of test clips."""
    tasks = {task.name: task for task in evaluation_plan.check(world.config(done)).tasks}
    drawn = np.zeros(200)
    for name, task in tasks.items():
        clips = [
            np.mean([seed["scores"][measure] for seed in world.cell(done, name, margin[row])["seeds"]], axis=0)
            for row in ("row", "random")
        ]
        groups = task.groups[task.splits == "test"]
        of_rows = [bootstrap.deviations(each[None], groups, 200, 0, name).accuracies for each in clips]
        drawn += len(groups) * (of_rows[0] - of_rows[1])
    return drawn / sum((task.splits == "test").sum() for task in tasks.values())


def test_table_cells_and_pictures_are_all_there_and_agree(world: World, done: Path) -> None:
    table = json.loads((done / "table.json").read_text())
    markdown = (done / "table.md").read_text()
    assert [row["name"] for row in table["rows"]] == ROWS
    assert table["tasks"] == list(SIZES)
    assert (done / "protocol.toml").read_text() == PROTOCOL
    assert table["protocol_sha256"][:16] in markdown
    assert table["unconverged"] == table["damaged"] == []
    assert table["num_groups"] == {"grouped": 12, "bare": 14}
    assert "Groups of test clips: grouped 12, bare 14." in markdown
    assert (done / "table.png").read_bytes().startswith(PNG)
    for row in table["rows"]:
        parts = [part for part in markdown.split("\n\n") if part.startswith("| system |")]
        lines = [line for part in parts for line in part.splitlines() if line.startswith(f"| {row['name']} |")]
        summary, *by_task = lines[: 1 + len(MEASURES)]
        assert len(lines) == (6 if row["name"] == table["reference"] else 10)
        for task, (*_, num_test) in SIZES.items():
            cell = world.cell(done, task, row["name"])
            assert len(cell["seeds"]) == row["num_seeds"] == (2 if row["name"].startswith("random") else 1)
            for measure, line in zip(MEASURES, by_task, strict=True):
                scores = np.array([seed["scores"][measure] for seed in cell["seeds"]])
                assert scores.shape[1] == num_test and scores.min() >= 0 and scores.max() <= 1
                interval = row["accuracy"][measure][task]
                assert interval["value"] == pytest.approx(scores.mean())
                assert interval["low"] <= interval["value"] <= interval["high"]
                assert f" {shown(interval)} |" in line
            strengths = [seed["linear"]["strength"] for seed in cell["seeds"]]
            assert row["strengths"][task] == strengths
            assert f"| {strengths[0]:g} |" in lines[-1] or len(strengths) > 1
            for seed in cell["seeds"]:
                confusion = np.array(seed["classes"]["confusion"])
                assert confusion.sum() == num_test
                assert confusion.trace() == sum(seed["scores"]["linear"])
            stem = row["name"].replace(" ", "-")
            assert (done / task / f"{stem}-confusion.png").read_bytes().startswith(PNG)
            assert (done / task / f"{stem}-map.png").read_bytes().startswith(PNG)
        for measure in MEASURES:
            mean = np.mean([row["accuracy"][measure][task]["value"] for task in SIZES])
            assert row["accuracy"][measure]["mean"]["value"] == pytest.approx(mean)
            assert f" {shown(row['accuracy'][measure]['mean'])} |" in summary


def shown(interval: dict[str, float]) -> str:
    """Return an interval as the table shows it."""
    return "{value:.1f} ({low:.1f}–{high:.1f})".format(**{name: 100 * value for name, value in interval.items()})


def test_a_table_is_read_back_as_it_was_and_another_versions_is_refused(
    world: World, done: Path, tmp_path: Path
) -> None:
    assert EvaluationTable.load(str(done)) == world.run(done)
    raw = json.loads((done / "table.json").read_text())
    raw["rows"][0]["accuracy"]["headline"]["bare"]["low"] = None
    (tmp_path / "table.json").write_text(json.dumps(raw))
    assert np.isnan(EvaluationTable.load(str(tmp_path)).rows[0].accuracy["headline"]["bare"].low)
    for version in (0, 1):  # version 1 had one probe
        (tmp_path / "table.json").write_text(json.dumps(raw | {"format_version": version}))
        with pytest.raises(ValueError, match=rf"table\.json has format_version {version}.*evaluate again"):
            EvaluationTable.load(str(tmp_path))


def test_recordings_in_two_splits_are_refused_or_named_under_the_table(world: World, tmp_path: Path) -> None:
    write_task(tmp_path / "tones", 16, 8, 16)
    tasks = (repeat_first_clip(tmp_path / "tones", 30),)
    with pytest.raises(
        ValueError, match=r"tones: 1 clips of test are in train too, such as clip-30, which is clip-0 there"
    ):
        evaluation_plan.check(world.config(tmp_path / "out", tasks=tasks, models=()))
    table = world.run(tmp_path / "out", tasks=tasks, models=(), random_seeds=0, shared_clips="keep")
    sentence = (
        "Recordings in two splits: tones: 1 clips of test are in train too, such as clip-30, which is clip-0 there"
    )
    assert sentence in table.notes and f"- {sentence}.\n" in (tmp_path / "out/table.md").read_text()
    assert EvaluationTable.load(str(tmp_path / "out")).shared == table.shared


@pytest.mark.parametrize("is_long", [False, True])
def test_statistics_that_a_task_lacks_are_computed_before_its_cells_and_on_ray_if_it_is_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_long: bool
) -> None:
    task = write_task(tmp_path / "task", 8, 4, 4)
    front_end = FrontEndConfig(f_max=7000)
    model = write_encoder(tmp_path / "run" / "encoder", "block1", front_end=front_end)
    fields = {"tasks": (task,), "models": (model,), "random_seeds": 1, "output": str(tmp_path / "out")}
    config = EvaluateConfig(**fields, cache=str(tmp_path / "cache"), processes=1)
    asked: list[str] = []
    monkeypatch.setattr(evaluation_job, "default_executor", lambda: asked.append("Ray") or IN_PROCESS)
    monkeypatch.setattr(evaluation_job, "fill_cells", lambda missing, fill, processes: iter(()))
    monkeypatch.setattr(evaluation_job, "_SECONDS_HERE", 0.0 if is_long else 3600.0)
    with pytest.raises(KeyError):  # it has no cell
        evaluation_job.run(evaluation_plan.check(config))
    assert asked == ["Ray"] * is_long
    assert ClipIndex.load([task], ["train"]).statistics(front_end) is not None


def test_scores_are_those_of_probes_written_out_with_scikit_learn(world: World, done: Path) -> None:
    evaluation = evaluation_plan.check(world.config(done))
    task = evaluation.tasks[0]
    (model,) = [system for system in evaluation.systems if system.name == "teacher"]
    (vectors,) = model.vectors(task, evaluation.protocol.config, evaluation.cache)
    expected = naive_probe(vectors, task, evaluation.protocol.config.probes)
    (seed,) = world.cell(done, task.name, "teacher")["seeds"]
    assert seed["linear"]["strength"] == expected.strength
    assert seed["linear"]["predictions"] == expected.predictions.tolist()
    assert seed["validation"]["clips"] == np.flatnonzero(task.splits == "valid").tolist()
    for measure in MEASURES:
        assert seed["scores"][measure] == pytest.approx(expected.test[measure])
        assert seed["validation"]["scores"][measure] == pytest.approx(expected.valid[measure])
        assert 0.25 < np.mean(seed["scores"][measure]) < 1  # otherwise the comparison would show little
    true, labels = task.class_ids[task.splits == "test"], range(len(task.class_names))
    assert seed["classes"]["confusion"] == confusion_matrix(true, expected.predictions, labels=labels).tolist()
    recalls = recall_score(true, expected.predictions, labels=labels, average=None, zero_division=0)
    assert seed["classes"]["recall"] == pytest.approx(recalls)
    assert world.cell(done, task.name, "teacher")["classes"] == task.class_names


def test_test_clips_are_classified_once_a_network(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted: list[int] = []
    predict = LogisticRegression.predict

    def counting(self: LogisticRegression, features: np.ndarray) -> np.ndarray:
        predicted.append(len(features))
        return predict(self, features)

    def asking(class_ids: np.ndarray, part: Part, nearest: np.ndarray) -> np.ndarray:
        asked.append(len(part.held))
        return neighbour_scores(class_ids, part, nearest)

    asked: list[int] = []
    monkeypatch.setattr(LogisticRegression, "predict", counting)
    monkeypatch.setattr(probe_module, "neighbour_scores", asking)
    world.run(tmp_path)
    num_networks, num_draws = 1 + 2 + 2 + 1 + 1, 2
    for _, _, num_test in SIZES.values():
        assert predicted.count(num_test) == num_networks * (1 + num_draws)
        assert asked.count(num_test) == num_networks


def test_test_labels_change_no_choice_and_no_prediction(world: World, done: Path, tmp_path: Path) -> None:
    other = World.write(tmp_path / "world")
    for name, sizes in SIZES.items():
        labels = noisy_labels(sum(sizes))
        first = sum(sizes[:2])
        replace_columns(other.folder / name, labels=labels[:first] + labels[first:][::-1])
    other.run(tmp_path / "out")
    changed = 0
    for task in SIZES:
        for row in ROWS:
            seeds = world.cell(done, task, row)["seeds"]
            for before, after in zip(seeds, other.cell(tmp_path / "out", task, row)["seeds"], strict=True):
                assert before["linear"] == after["linear"]
                assert before["validation"] == after["validation"]
                changed += before["scores"] != after["scores"]
    assert changed


def test_cells_that_are_there_are_not_computed_again(world: World, tmp_path: Path, probed: list[int]) -> None:
    tasks = {"tasks": (str(world.folder / "bare"),)}
    student = f"student={world.folder}/bare-run"
    first = world.run(tmp_path, **tasks, models=(student,))
    assert len(probed) == 1 + 2 + 1
    written = {path: path.read_bytes() for path in (tmp_path / "bare").iterdir()}
    assert world.run(tmp_path, **tasks, models=(student,)) == first
    assert len(probed) == 4
    assert {path: path.read_bytes() for path in (tmp_path / "bare").iterdir()} == written

    # A further model adds its cell and that of the random networks of its shape.
    both = world.run(tmp_path, **tasks, models=(student, f"{world.folder}/teacher"))
    assert len(probed) == 4 + 1 + 2
    assert [row.name for row in both.rows] == [ROWS[0], ROWS[2], ROWS[1], ROWS[4], ROWS[3]]
    assert both.rows[-2].accuracy == first.rows[-1].accuracy

    # A further task adds all its cells.
    world.run(tmp_path, models=(student,))
    assert len(probed) == 7 + 4

    # A cell without its JSON, as after an interruption, is made again.
    (tmp_path / "bare" / "student.json").unlink()
    assert world.run(tmp_path, **tasks, models=(student,)) == first
    assert len(probed) == 12


def test_another_protocol_other_clips_and_other_weights_compute_cells_again(tmp_path: Path, probed: list[int]) -> None:
    world = World.write(tmp_path / "world")
    fields = {"tasks": (str(world.folder / "bare"),), "models": (f"{world.folder}/teacher",), "random_seeds": 0}
    old = world.run(tmp_path / "out", **fields)
    assert len(probed) == 2
    (world.folder / "protocol.toml").write_text(PROTOCOL.replace("[0.01, 1.0]", "[0.1]"))
    table = world.run(tmp_path / "out", **fields)
    assert len(probed) == 4
    assert table.protocol_sha256 != old.protocol_sha256
    assert world.cell(tmp_path / "out", "bare", "teacher")["seeds"][0]["linear"]["strength"] == 0.1

    write_encoder(world.folder / "teacher" / "encoder", "fc2", seed=9)
    world.run(tmp_path / "out", **fields)
    assert len(probed) == 5

    replace_columns(world.folder / "bare", labels=noisy_labels(38)[::-1])
    world.run(tmp_path / "out", **fields)
    assert len(probed) == 7


@pytest.mark.parametrize("changed", ["protocol", "weights", "nothing"])
def test_an_interrupted_evaluation_leaves_no_table_of_other_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    """The folder showed the table of the old protocol beside the new protocol.toml."""
    world, out = World.write(tmp_path / "world"), tmp_path / "out"
    fields = {"tasks": (str(world.folder / "bare"),), "models": (f"{world.folder}/teacher",), "random_seeds": 0}
    world.run(out, **fields)
    of_table = {"table.md", "table.json", "table.png", "evaluation.json"}
    assert of_table <= {path.name for path in out.iterdir()}
    if changed == "protocol":
        (world.folder / "protocol.toml").write_text(PROTOCOL.replace("[0.01, 1.0]", "[0.1]"))
    elif changed == "weights":
        write_encoder(world.folder / "teacher" / "encoder", "fc2", seed=9)
    else:  # a further row, which leaves the others true
        fields["models"] = (*fields["models"], f"student={world.folder}/bare-run")

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation_job, "fill_cells", interrupted)
    with pytest.raises(KeyboardInterrupt):
        world.run(out, **fields)
    found = of_table & {path.name for path in out.iterdir()}
    assert found == (of_table if changed == "nothing" else set())


def test_a_cell_of_damaged_clips_is_named_and_computed_again(tmp_path: Path, probed: list[int]) -> None:
    world = World.write(tmp_path / "world")
    fields = {"tasks": (str(world.folder / "bare"),), "models": (f"{world.folder}/teacher",), "random_seeds": 0}
    expected = world.run(tmp_path / "expected", **fields)
    shard = world.folder / "bare" / "00001.parquet"  # of all test clips
    whole = shard.read_bytes()
    evaluation = evaluation_plan.check(world.config(tmp_path / "out", **fields))
    shard.write_bytes(whole[:-100] + bytes(100))
    table = evaluation_job.run(evaluation)
    assert table.damaged == ("log-mel statistics on bare (14)", "teacher on bare (14)")
    assert any("teacher on bare (14)" in sentence for sentence in table.notes)
    assert world.cell(tmp_path / "out", "bare", "teacher")["damaged"] == 14
    shard.write_bytes(whole)
    for _ in range(2):  # the second time from its cells
        assert world.run(tmp_path / "out", **fields) == expected
        assert len(probed) == 6
    assert world.cell(tmp_path / "out", "bare", "teacher")["damaged"] == 0
    assert not any("damaged" in sentence for sentence in expected.notes)


def test_of_one_group_of_test_clips_no_interval_is_known_and_no_difference_marked(world: World, tmp_path: Path) -> None:
    groups = [f"train {clip}" for clip in range(24)] + ["test"] * 14
    task = write_task(tmp_path / "alone", 24, 0, 14, labels=noisy_labels(38), group=groups)
    models = (f"{world.folder}/teacher",)
    table = world.run(tmp_path / "out", tasks=(task,), models=models, reference=ROWS[0], random_seeds=0)
    assert table.num_groups == {"alone": 1}
    numbers = json.loads((tmp_path / "out" / "table.json").read_text())["rows"]
    for row in numbers:
        of_tasks = [by_task for kind in ("accuracy", "difference") for by_task in row[kind].values()]
        assert {by_task["alone"][end] for by_task in of_tasks for end in ENDS} == {None}
    for measure in MEASURES:
        value = table.rows[1].difference[measure]["alone"].value
        assert f"| teacher | {100 * value:+.1f} (–) |" in table.to_markdown()
    console = Console(file=StringIO(), width=100)
    console.print(evaluation_table(table, console))
    rows, caption = console.file.getvalue().split("▲ ▼ above, below")  # type: ignore[attr-defined]
    assert "▲" not in rows and "▼" not in rows and "nan" not in rows
    assert "alone 1" in caption


def test_intervals_of_few_groups_are_wider_by_their_tasks_factor(world: World, done: Path) -> None:
    evaluation = evaluation_plan.check(world.config(done))
    grouped = evaluation.tasks[0]
    for row in evaluation_job.run(evaluation).rows:
        seeds = world.cell(done, "grouped", row.name)["seeds"]
        for measure in MEASURES:
            scores_SN = np.array([seed["scores"][measure] for seed in seeds])
            drawn = bootstrap.deviations(scores_SN, grouped.groups[grouped.splits == "test"], 200, 0, "grouped")
            wide = scores_SN.mean() + bootstrap.expansion(12) * drawn.by_clips
            if len(scores_SN) > 1:
                wide += bootstrap.tails(len(scores_SN)) * drawn.by_seeds
            ends = np.clip(np.quantile(wide, [0.025, 0.975]), 0, 1)
            found = row.accuracy[measure]["grouped"]
            assert [found.low, found.high] == pytest.approx(ends)


def test_what_validation_chose_for_several_networks_is_the_most_common_and_of_how_many() -> None:
    accuracy = {measure: {"t": Interval(0.5, 0.4, 0.6)} for measure in MEASURES}
    rows = [
        Row(name, 10, 1e6, len(chosen), accuracy, {}, {"t": chosen})
        for name, chosen in {"mixed": [10.0, 1e-5, 1e-5], "agreed": [10.0, 10.0], "one": [1e-5]}.items()
    ]
    markdown = EvaluationTable(("t",), {"t": 5}, tuple(rows), "one", "0" * 64, (), ()).to_markdown()
    lines = markdown.split("C of the linear probe, chosen on validation clips:")[1].splitlines()
    assert lines[4:7] == ["| mixed | 1e-05 (2 of 3) |", "| agreed | 10 |", "| one | 1e-05 |"]


def test_a_row_and_the_same_under_another_name_differ_by_exactly_nothing(world: World, tmp_path: Path) -> None:
    models = (f"{world.folder}/teacher", f"again={world.folder}/teacher", f"student={world.folder}/{{task}}-run")
    table = world.run(tmp_path, models=models, random_seeds=0)
    rows = {row.name: row for row in table.rows}
    assert table.reference == "teacher"  # it is the first model
    assert rows["teacher"].difference == {}
    cells_of_table = [(measure, heading) for measure in MEASURES for heading in (*SIZES, "mean")]
    for measure, heading in cells_of_table:
        nothing = rows["again"].difference[measure][heading]
        assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)
    assert rows["again"].accuracy == rows["teacher"].accuracy
    turned = {row.name: row for row in world.run(tmp_path, models=models, random_seeds=0, reference="student").rows}
    for measure, heading in cells_of_table:
        difference = rows["student"].difference[measure][heading]
        of_student, of_teacher = (rows[name].accuracy[measure][heading].value for name in ("student", "teacher"))
        assert difference.value == pytest.approx(of_student - of_teacher)
        assert difference.low <= difference.value <= difference.high
        other = turned["teacher"].difference[measure][heading]
        assert other.value == pytest.approx(-difference.value)
        assert other.low == pytest.approx(-difference.high)


def test_without_models_there_are_log_mel_statistics_and_the_usual_random_network(world: World, tmp_path: Path) -> None:
    evaluation = evaluation_plan.check(world.config(tmp_path, models=()))
    assert [system.name for system in evaluation.systems] == ["log-mel statistics", "random fc2"]
    assert evaluation.reference == "log-mel statistics"


@pytest.mark.parametrize(
    ("width", "full", "headings"),
    [(70, False, ("mean",)), (100, True, ("mean",)), (160, False, (*SIZES, "mean")), (200, True, (*SIZES, "mean"))],
)
def test_the_terminals_table_is_never_cut_and_has_intervals_where_there_is_room(
    world: World, done: Path, width: int, full: bool, headings: tuple[str, ...]
) -> None:
    table = world.run(done)
    console = Console(file=StringIO(), width=width)
    console.print(evaluation_table(table, console))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text.rpartition("─")[0]
    assert table.protocol_sha256[:16] in text
    words = " ".join(text.split())
    assert ("too narrow" in words) == (width < 200)
    margin, marks = (words.index(sentence) for sentence in (table.margin_notes[0], "▲ ▼ above, below"))
    assert margin < marks
    assert "A random row is the mean of 2 networks; its interval draws networks too." in words
    lines = text.splitlines()
    for row in table.rows:
        (first,) = [number for number, line in enumerate(lines) if line.startswith(f"  {row.name}  ")]
        values, ends = [], []
        for measure, heading in ((measure, heading) for measure in MEASURES for heading in headings):
            interval = row.accuracy[measure][heading]
            difference = row.difference[measure][heading] if row.difference else None
            mark = "▲" if difference and difference.low > 0 else "▼" if difference and difference.high < 0 else ""
            values.append(f"{100 * interval.value:.1f}{mark}")
            ends.append(f"{100 * interval.low:.1f}–{100 * interval.high:.1f}")
        assert lines[first].split()[-len(values) :] == values
        assert (lines[first + 1].split()[-len(ends) :] == ends) == full
        if row.parameters:
            assert (f" {row.parameters:,} " in lines[first]) == full
    shown_above = " ".join(lines[:4]).split()
    assert [shown_above.count(heading) for heading in (*SIZES, "mean")] == [
        len(MEASURES) if heading in headings else 0 for heading in (*SIZES, "mean")
    ]


def test_results_and_kept_vectors_may_lie_in_an_object_store(world: World, tmp_path: Path, object_store: str) -> None:
    fields = {"tasks": (str(world.folder / "bare"),), "models": (f"{world.folder}/teacher",), "random_seeds": 0}
    local = world.run(tmp_path, **fields)
    for _ in range(2):  # the second time from its cells
        assert world.run(f"s3://bucket/evaluation{object_store}", **fields) == local


def test_mlflow_has_one_run_with_metrics_and_files_and_a_second_evaluation_goes_on_in_it(
    world: World, tmp_path: Path, tracking_uri: str
) -> None:
    experiment = "evaluations"
    fields = {"tracking": TrackingConfig(uri=tracking_uri, experiment=experiment), "random_seeds": 1, "name": "mine"}
    client = MlflowClient(tracking_uri=tracking_uri)
    runs = []
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "another-evaluations-row.json").write_text("{}")
    for models in ((f"{world.folder}/teacher",), (f"{world.folder}/teacher", f"student={world.folder}/{{task}}-run")):
        evaluation = evaluation_plan.check(world.config(tmp_path, **fields, models=models))
        table = evaluation_job.run(evaluation)
        evaluation_tracked.track(evaluation, table)
        (run,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
        runs.append(run)
        assert (run.info.status, run.info.run_name) == ("FINISHED", "mine")
        assert run.data.tags["unfused_ray.stage"] == "evaluate"
        upstream = json.loads(run.data.tags["unfused_ray.upstream"])
        teacher = read_description(f"{world.folder}/teacher")["sha256"]
        assert upstream[0] == {"uri": f"{world.folder}/teacher", "sha256": teacher}
        assert len(json.loads(run.data.tags["unfused_ray.data"])) == len(SIZES)
        assert run.data.tags["unfused_ray.protocol"] == table.protocol_sha256
        for row in table.rows:
            for measure, heading in ((measure, heading) for measure in MEASURES for heading in (*SIZES, "mean")):
                name, interval = row.name.replace("(4 × 16)", "_4 _ 16_"), row.accuracy[measure][heading]
                assert run.data.metrics[f"{name}/{heading}/{measure}/accuracy"] == pytest.approx(interval.value)
                assert run.data.metrics[f"{name}/{heading}/{measure}/low"] == pytest.approx(interval.low)
                assert run.data.metrics[f"{name}/{heading}/{measure}/high"] == pytest.approx(interval.high)
    assert runs[0].info.run_id == runs[1].info.run_id
    kept = {artifact.path for artifact in client.list_artifacts(runs[1].info.run_id)}
    assert kept == {"config.json", "table.json", "table.md", "table.png", "protocol.toml", *SIZES}
    for task in SIZES:
        kept = {artifact.path for artifact in client.list_artifacts(runs[1].info.run_id, task)}
        assert {f"{task}/student.json", f"{task}/student-confusion.png", f"{task}/student-map.png"} <= kept
        assert f"{task}/another-evaluations-row.json" not in kept


def test_an_end_of_an_interval_that_cannot_be_known_is_no_metric(world: World, done: Path, tracking_uri: str) -> None:
    tracking = TrackingConfig(uri=tracking_uri, experiment="unknown")
    evaluation = evaluation_plan.check(world.config(done, tracking=tracking))
    accuracy = {measure: {"alone": Interval(0.5, float("nan"), float("nan"))} for measure in MEASURES}
    unknown = Row("row", None, None, 1, accuracy, {}, {})
    evaluation_tracked.track(evaluation, EvaluationTable((), {}, (unknown,), "row", evaluation.protocol.sha256, (), ()))
    client = MlflowClient(tracking_uri=tracking_uri)
    (run,) = client.search_runs([client.get_experiment_by_name("unknown").experiment_id])
    assert run.data.metrics == {f"row/alone/{measure}/accuracy": 0.5 for measure in MEASURES}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "tasks=() names nothing: give at least one folder written by unfused-ray prepare"),
        ("--tasks {0}/bare {0}/bare", "tasks={0}/bare: another column of the table is called 'bare'"),
        ("--tasks {0}/bare {0}/mean", "tasks={0}/mean: another column of the table is called 'mean'"),
        ("--tasks {0}/nowhere", "{0}/nowhere holds no manifest.json"),
        ("--tasks {0}/bare --reference best", "reference=best is no row; the rows are log-mel statistics, random fc2"),
        ("--tasks {0}/bare --models {0}/bare", "{0}/bare holds no encoder.json: it is not an exported encoder, nor a"),
        ("--tasks {0}/bare --models s={0}/{{task}}-x", "{0}/bare-x holds no encoder.json"),
        (
            "--tasks {0}/bare --models {0}/teacher {0}/teacher/encoder",
            "'teacher' must differ from the names of other rows",
        ),
        ("--tasks {0}/bare --models log-mel-statistics={0}/teacher", "must differ from the names of other rows"),
        ("--tasks {0}/bare --models {0}/fast", "{0}/bare is at 16000 Hz, the encoder at 32000 Hz"),
        ("--tasks {0}/bare --tracking.uri sqlite:///a.db", "tracking.uri=sqlite:///a.db is relative"),
        ("--tasks {0}/bare --protocol {0}/no.toml", "{0}/no.toml: there is no such file"),
        ("--random-seeds -1", "random_seeds=-1: Input should be greater than or equal to 0"),
    ],
)
def test_what_cannot_work_is_one_message_before_anything_is_computed(
    command_line: Callable[..., Ended], tmp_path: Path, arguments: str, message: str, probed: list[int]
) -> None:
    for name in ("bare", "mean"):
        write_task(tmp_path / name, 2, 0, 2)
    write_encoder(tmp_path / "teacher" / "encoder", "fc2")
    write_encoder(tmp_path / "fast", "fc2", front_end=FrontEndConfig(sample_rate=32_000))
    ended = command_line("evaluate", *arguments.format(tmp_path).split(), "--output", str(tmp_path / "out"))
    assert (ended.code, ended.out, probed) == (2, "", [])
    assert message.format(tmp_path) in ended.err
    assert ended.err.startswith("error: ") and ended.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_job_says_what_it_would_do_then_does_it_and_shows_the_table(
    world: World, tmp_path: Path, command_line: Callable[..., Ended], tracking_uri: str
) -> None:
    arguments = [
        "evaluate",
        "--tasks",
        f"{world.folder}/bare",
        "--models",
        f"{world.folder}/teacher",
        "--random-seeds",
        "1",
    ]
    arguments += ["--protocol", f"{world.folder}/protocol.toml", "--output", f"{tmp_path}/out"]
    arguments += ["--cache", f"{tmp_path}/cache", "--tracking.uri", tracking_uri]
    ended = command_line(*arguments, "--dry-run")
    assert ended.code == 0
    assert "4 classes; 24 train, 0 valid, 14 test" in ended.out
    assert all(row in ended.out for row in ("log-mel statistics", "random fc2 (4 × 16)", "teacher"))
    assert not (tmp_path / "out").exists()
    ended = command_line(*arguments)
    assert ended.code == 0
    out = ended.out
    assert "(4 × 16)" in out and "▲ ▼ above, below teacher: the 95 %" in out and f"{tmp_path}/out" in out
    assert (tmp_path / "out" / "table.md").exists()


def test_models_are_known_by_their_rows_and_the_reference_is_a_row(world: World, tmp_path: Path) -> None:
    evaluation = evaluation_plan.check(world.config(tmp_path, reference="random fc1 (4 × 16)"))
    assert [system.name for system in evaluation.systems] == ROWS
    assert [system.name for system in evaluation.systems if isinstance(system, TrainedModel)] == ROWS[3:]
    assert evaluation.reference == "random fc1 (4 × 16)"
