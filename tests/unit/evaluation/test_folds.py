"""Tasks with folds, where each clip is tested once and the mean counts, and tasks with parts of test clips."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.evaluations import evaluated
from support.probes import naive_probe
from support.sources import write_source
from support.tasks import PROTOCOL, SMALL, replace_columns, write_encoder, write_folds, write_task

from unfused_ray.audio import randomness
from unfused_ray.config import EvaluateConfig, FrontEndConfig
from unfused_ray.evaluation.bootstrap import deviations
from unfused_ray.evaluation.cells import MEASURES, Cell, read
from unfused_ray.evaluation.systems import TrainedModel, largest_cost
from unfused_ray.evaluation.tasks import Task, load_task
from unfused_ray.evaluation_job import job as evaluation_job
from unfused_ray.evaluation_job import plan as evaluation_plan
from unfused_ray.evaluation_job import tracked as evaluation_tracked
from unfused_ray.models.cost import num_parameters
from unfused_ray.models.encoder import AudioNTT2020

SIZES = (9, 6, 12, 6)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return load_task(write_folds(tmp_path_factory.mktemp("folds") / "tones", SIZES))


def fold_of(task: Task) -> np.ndarray:
    return np.repeat([f"fold{1 + number}" for number in range(len(SIZES))], SIZES)


def test_in_round_k_fold_k_is_tested_the_next_validates_and_the_others_train(task: Task) -> None:
    assert task.folds == ("fold1", "fold2", "fold3", "fold4")
    assert [round_.name for round_ in task.rounds] == [f"tones-fold{number}" for number in (1, 2, 3, 4)]
    folds = fold_of(task)
    for number, round_ in enumerate(task.rounds):
        tested, validating = task.folds[number], task.folds[(number + 1) % 4]
        assert set(folds[round_.splits == "test"]) == {tested}
        assert set(folds[round_.splits == "valid"]) == {validating}
        training = {*task.folds} - {tested, validating}
        assert set(folds[round_.splits == "train"]) == training
        assert {shard.split for shard in round_.training.manifests[0].shards} == training
        assert round_.training.num_clips == (round_.splits == "train").sum()
    assert np.sum([round_.splits == "test" for round_ in task.rounds], axis=0).tolist() == [1] * sum(SIZES)


def test_folds_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    task = load_task(write_folds(tmp_path, (3,) * 11))
    assert task.folds == tuple(f"fold{number}" for number in range(1, 12))
    assert set(task.rounds[9].training_splits) == {f"fold{n}" for n in range(1, 10)}


def test_a_task_without_folds_is_its_own_only_round_and_its_clips_count_alike(tmp_path: Path) -> None:
    task = load_task(write_task(tmp_path, 6, 2, 4))
    assert task.rounds == (task,)
    assert task.tested.tolist() == [False] * 8 + [True] * 4
    assert task.test_weights.tolist() == [1.0] * 4


def test_normalisation_is_that_of_the_rounds_training_folds_alone(task: Task) -> None:
    front_end = FrontEndConfig()
    of_shards = [shard.statistics[front_end.digest()] for shard in task.index.manifests[0].shards]
    for number, round_ in enumerate(task.rounds):
        training = [of_shards[(number + offset) % 4] for offset in (2, 3)]
        assert round_.statistics(front_end).sum == pytest.approx(sum(statistics.sum for statistics in training))


def test_a_score_is_the_mean_of_the_folds_of_probes_written_out_with_scikit_learn(task: Task, tmp_path: Path) -> None:
    model = f"mine={write_encoder(tmp_path / 'run', 'fc2')}"
    table = evaluated(tmp_path, task.uri, model, random_seeds=2)
    mine = TrainedModel("mine", str(tmp_path / "run"))
    evaluation = evaluation_plan.check(table_config(tmp_path, task.uri, model))
    config = evaluation.protocol.config
    expected = []
    for round_ in task.rounds:
        (vectors,) = mine.vectors(round_, config, evaluation.cache)
        expected.append(naive_probe(vectors, round_, config.probes))
    rows = {row.name: row for row in table.rows}
    assert rows["mine"].strengths["tones"] == [each.strength for each in expected]
    random = rows["random fc2 (4 × 16)"]
    assert (random.num_seeds, len(random.strengths["tones"])) == (2, 8)
    (system,) = [system for system in evaluation.systems if system.name == "mine"]
    kept = read(str(tmp_path / "out"), task, system, evaluation.protocol)
    assert kept is not None
    held_out = np.concatenate([np.flatnonzero(round_.splits == "valid") for round_ in task.rounds])
    assert kept.validation_groups.tolist() == task.groups[held_out].tolist()
    cell = json.loads((tmp_path / "out/tones/random-fc2-(4-×-16).json").read_text())
    for measure in MEASURES:
        means = [each.test[measure].mean() for each in expected]
        assert rows["mine"].accuracy[measure]["tones"].value == pytest.approx(np.mean(means))
        of_clips = np.concatenate([each.valid[measure] for each in expected])  # a clip validates in one round
        np.testing.assert_allclose(kept.validation[measure], of_clips[None])
        by_fold = np.reshape([np.mean(result["scores"][measure]) for result in cell["seeds"]], (4, 2)).mean(axis=1)
        assert random.accuracy[measure]["tones"].value == pytest.approx(by_fold.mean())
        pooled = np.average(by_fold, weights=SIZES)
        assert pooled != pytest.approx(by_fold.mean())
    assert "Mean of folds, each tested once: tones 4." in table.to_markdown()
    assert table.num_groups == {"tones": len({*task.groups})}
    assert evaluated(tmp_path, task.uri, model, random_seeds=2) == table  # read from its cells


def test_networks_that_found_other_clips_damaged_keep_the_validation_clips_of_all(task: Task) -> None:
    """An error of numpy's ended the evaluation, such as when a shard was damaged between two random networks."""
    results = []
    for round_ in task.rounds:
        held = np.flatnonzero(round_.splits == "valid")
        for clips in (held, held[:0:-1]):  # the second network lacks the first clip
            by_measure = {measure: (clips / 100).tolist() for measure in MEASURES}
            scores = {measure: np.zeros((round_.splits == "test").sum()).tolist() for measure in MEASURES}
            results.append({"scores": scores, "validation": {"clips": clips.tolist(), "scores": by_measure}})
    cell = Cell.of(results, task, damaged=1)
    kept = np.concatenate([np.flatnonzero(round_.splits == "valid")[1:] for round_ in task.rounds])
    assert cell.validation_groups.tolist() == task.groups[kept].tolist()
    for measure in MEASURES:
        assert cell.validation[measure].tolist() == [(kept / 100).tolist()] * 2


def table_config(folder: Path, task: str, model: str) -> EvaluateConfig:
    return EvaluateConfig(
        models=(model,), tasks=(task,), cache=str(folder / "cache"), protocol=str(folder / "protocol.toml")
    )


def test_every_fold_may_have_a_network_of_its_own(task: Task, tmp_path: Path) -> None:
    for number, fold in enumerate(task.folds):
        write_encoder(tmp_path / f"student-tones-{fold}", "fc1" if number == 2 else "block1", seed=number)
    model = TrainedModel("student", f"{tmp_path}/student-{{task}}")
    uris = [model.uri(round_) for round_ in task.rounds]
    assert uris == [f"{tmp_path}/student-tones-{fold}" for fold in task.folds]
    cost = largest_cost(model, [task])
    assert cost is not None and cost[0] == num_parameters(AudioNTT2020(SMALL.replace(cut="fc1"), 64))
    keys = []
    for seed in (3, 9):  # a new network of one fold gives a new cell
        write_encoder(tmp_path / f"student-tones-{task.folds[3]}", "block1", seed=seed)
        evaluated(tmp_path, task.uri, f"student={tmp_path}/student-{{task}}")
        cell = json.loads((tmp_path / "out/tones/student.json").read_text())
        assert [len(result["linear"]["predictions"]) for result in cell["seeds"]] == list(SIZES)
        keys.append(cell["key"])
    assert keys[0] != keys[1]


def test_an_evaluation_is_linked_to_the_network_of_every_fold(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fold in task.folds:
        write_encoder(tmp_path / f"student-tones-{fold}", "block1")
    (tmp_path / "protocol.toml").write_text(PROTOCOL)
    asked: list[str] = []
    monkeypatch.setattr(evaluation_tracked, "upstream", asked.append)
    monkeypatch.setattr(evaluation_tracked, "tags", lambda *arguments: {})
    monkeypatch.setattr(evaluation_tracked, "kept_id", lambda output: "0" * 32)
    config = table_config(tmp_path, task.uri, f"student={tmp_path}/student-{{task}}")
    evaluation_tracked._tracked_run(evaluation_plan.check(config), "")
    assert asked == [f"{tmp_path}/student-tones-{fold}" for fold in task.folds]


def test_replicates_of_weighted_clips_are_means_of_folds_where_whole_folds_are_groups(task: Task) -> None:
    """If each fold is a group, a replicate is the mean of the drawn folds, whatever their sizes."""
    folds = fold_of(task)
    correct = np.concatenate([np.arange(size) < right for size, right in zip(SIZES, (1, 2, 7, 5), strict=True)])[None]
    of_fold = [correct[0, folds == fold].mean() for fold in task.folds]
    drawn = deviations(correct, folds, 200, 0, "t", task.test_weights)
    found = drawn.accuracy + drawn.by_clips
    assert drawn.accuracy == pytest.approx(np.mean(of_fold))
    counts = [randomness.generator(0, f"bootstrap group {fold}").poisson(1.0, 200) for fold in task.folds]
    means = [np.average(of_fold, weights=of if any(of) else None) for of in zip(*counts, strict=True)]
    assert found == pytest.approx(means)


def test_too_few_folds_and_uses_that_need_splits_are_refused(tmp_path: Path, task: Task) -> None:
    with pytest.raises(ValueError, match="has 2 folds and no train, valid and test clips"):
        load_task(write_folds(tmp_path, (4, 4)))
    with pytest.raises(ValueError, match="has 4 folds and no train, valid and test clips"):
        load_task(task.uri, ("train", "valid"))
    for folds, beside in ((("fold1", "fold2", "fold3"), "test"), (("fold1", "fold2"), "train")):
        both = tmp_path / beside
        write_source(both, [[6]] * (len(folds) + 1), (2_400,), [*folds, beside])
        labels = [[f"class {number % 3}"] for number in range(6 * len(folds) + 6)]
        with pytest.raises(
            ValueError, match=rf"has folds \({', '.join(folds)}\) and also {beside}: an evaluation tests"
        ):
            load_task(replace_columns(both, labels=labels))


def test_a_group_in_two_folds_is_a_leak(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    uri = write_folds(tmp_path, (3, 3, 3))
    load_task(uri)
    assert not caplog.records
    load_task(replace_columns(tmp_path, group=["a", "", "", "a", *[""] * 5]))
    assert "1 group is in test and in another split (a …)" in caplog.text


def test_parts_of_the_test_clips_are_tested_together_and_reported_too(tmp_path: Path) -> None:
    splits = ["train", "valid", "test-field", "test-phone"]
    write_source(tmp_path / "birds", [[24], [8], [6], [10]], (2_400, 4_000), splits)
    labels = [[f"class {number % 3}"] for number in range(48)]
    uri = replace_columns(tmp_path / "birds", labels=labels)
    task = load_task(uri)
    assert (task.splits == "test").sum() == 16
    assert task.parts.tolist() == [""] * 32 + ["field"] * 6 + ["phone"] * 10
    table = evaluated(tmp_path, uri, f"mine={write_encoder(tmp_path / 'run', 'fc2')}")
    (seed,) = json.loads((tmp_path / "out/birds/mine.json").read_text())["seeds"]
    right = np.array(seed["linear"]["predictions"]) == task.class_ids[32:]
    (row,) = [row for row in table.rows if row.name == "mine"]
    assert row.accuracy_by_part == {"birds": pytest.approx({"field": right[:6].mean(), "phone": right[6:].mean()})}
    assert row.accuracy["linear"]["birds"].value == pytest.approx(right.mean())
    heading = "| system | birds: field | birds: phone |\n|---|--:|--:|\n"
    line = f"| mine | {100 * right[:6].mean():.1f} | {100 * right[6:].mean():.1f} |"
    assert heading in table.to_markdown() and line in table.to_markdown()
    assert load_task(uri, ("train", "valid")).splits.tolist() == ["train"] * 24 + ["valid"] * 8


def test_clips_of_the_plain_test_split_are_no_part_of_it(tmp_path: Path) -> None:
    write_source(tmp_path / "birds", [[24], [8], [6], [10]], (2_400, 4_000), ["train", "valid", "test", "test-phone"])
    uri = replace_columns(tmp_path / "birds", labels=[[f"class {number % 3}"] for number in range(48)])
    table = evaluated(tmp_path, uri)
    assert [list(row.accuracy_by_part["birds"]) for row in table.rows] == [["phone"]]
    assert "| system | birds: phone |\n" in table.to_markdown()


def test_each_network_of_a_fold_is_asked_for_near_copies_of_its_own_fold(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int, dict[str, str]]] = []
    monkeypatch.setattr(
        evaluation_job, "near_copies", lambda name, tested, uris: asked.append((name, tested.num_clips, uris)) or [name]
    )
    systems = (TrainedModel("own", "/runs/{task}"), TrainedModel("joint", "/runs/joint"))
    sentences = evaluation_job._near_copies(SimpleNamespace(tasks=(task,), systems=systems))
    assert sentences == ["tones", *(f"tones-fold{number}" for number in (1, 2, 3, 4))]
    assert asked[0] == ("tones", sum(SIZES), {"joint": "/runs/joint"})
    for (name, count, uris), size in zip(asked[1:], SIZES, strict=True):
        assert (count, uris) == (size, {"own": f"/runs/{name}"})
