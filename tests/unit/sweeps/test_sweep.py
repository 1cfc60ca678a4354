"""Sweeps: spaces and points, trials kept as files, a whole sweep that is killed and resumed, and its winner."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution, json_to_distribution
from ray.tune.search import Searcher
from rich.console import Console
from support.paths import ROOT
from support.sources import write_source
from support.tasks import LENGTHS, PROTOCOL, write_encoder, write_task

from unfused_ray import cluster, recipes, storage
from unfused_ray.config import DistillConfig, SweepConfig
from unfused_ray.embedding.cache import EmbeddingCache
from unfused_ray.evaluation.cells import MEASURES
from unfused_ray.evaluation.probes.clips import Labelled
from unfused_ray.evaluation.probes.probe import validate
from unfused_ray.evaluation.protocol import BootstrapConfig, load_protocol
from unfused_ray.evaluation.systems import TrainedModel
from unfused_ray.evaluation.tasks import VALIDATION_SPLITS, load_task
from unfused_ray.report.sweep import is_default
from unfused_ray.runs.checkpoints import CheckpointStore, Position
from unfused_ray.runs.environment import environment
from unfused_ray.runs.run import Run
from unfused_ray.runs.status import Status
from unfused_ray.sweeps import SWEEP, plan, result, space, spaces, trial
from unfused_ray.sweeps import job as sweep
from unfused_ray.sweeps.score import Score, mean_accuracy
from unfused_ray.sweeps.search import make_search
from unfused_ray.sweeps.trial import Record, Rung, TrialPlan

SPACE: space.Space = {
    "method.alpha": FloatDistribution(0.0, 1.0),
    "method.beta": FloatDistribution(1e-3, 10.0, log=True),
    "labels.num_clusters": CategoricalDistribution((3, 4)),
}
SPACES: dict[str, space.Space] = {
    "three": SPACE,
    "seeds": {"seed": IntDistribution(0, 9)},
    "wide": {"method.alpha": FloatDistribution(0.0, 1.5)},
    "momentum": {"method.alpha": FloatDistribution(0.0, 1.0), "optimizer.momentum": FloatDistribution(0.1, 0.9)},
    "crops": {"crop.seconds": FloatDistribution(0.5, 2.0)},
}


@pytest.fixture(autouse=True)
def known_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, each in SPACES.items():
        monkeypatch.setitem(spaces.SPACES, name, each)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Two tasks with training and validation clips; the shards of their test clips are deleted."""
    folder = tmp_path_factory.mktemp("tasks")
    uris = []
    for name in ("a", "b"):
        groups = [f"g{i % 5}" for i in range(24)] + [f"v{i % 4}" for i in range(12)] + [""] * 4
        uris.append(write_task(folder / name, 24, 12, 4, group=groups))
        manifest = json.loads((folder / name / "manifest.json").read_text())
        (folder / name / manifest["shards"][-1]["file"]).unlink()
    return tuple(uris)


@pytest.fixture
def config(tasks: tuple[str, ...], tmp_path: Path, tracking_uri: str) -> Callable[..., SweepConfig]:
    (tmp_path / "protocol.toml").write_text(PROTOCOL)
    teacher = write_encoder(tmp_path / "teacher" / "encoder", "fc2")

    def make(**fields: Any) -> SweepConfig:
        base = recipes.SWEEP["tiny"][1]
        given = {"tasks": tasks, "output": str(tmp_path / "sweep"), "space": "three"}
        given |= {"distill.teacher": teacher, "distill.tracking.uri": tracking_uri, "distill.batch.blocks_per_step": 1}
        return base.replace({**given, "protocol": str(tmp_path / "protocol.toml"), **fields})

    return make


def two_blocks(distill: DistillConfig, gpus_per_worker: float = 0.0) -> DistillConfig:
    """Return the configuration with two blocks a step, which two workers can share."""
    return distill.replace({"batch.blocks_per_step": 2, "runtime.gpus_per_worker": gpus_per_worker})


def test_a_point_changes_the_fields_it_names_and_no_others() -> None:
    config = DistillConfig()
    changed = space.apply(config, {"method.alpha": 0.25, "labels.num_clusters": 7})
    assert (changed.method.alpha, changed.labels.num_clusters) == (0.25, (7,))
    back = {"method.alpha": config.method.alpha, "labels.num_clusters": config.labels.num_clusters}
    assert space.apply(changed, back) == config


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"method.alhpa": 1.0}, r"space: .* cannot work: method\.alhpa is no field .* method\.alpha"),
        ({"nothing.at.all": 1.0}, r"space: .* cannot work: nothing\.at\.all is no field"),
        ({"method.alpha": 2.0}, r'space: \{"method.alpha": 2.0\} cannot work'),
    ],
)
def test_a_point_that_cannot_work_is_refused(point: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        space.apply(DistillConfig(), point)


def test_a_space_of_ones_own_is_read_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = spaces.find_space(f"{ROOT}/tuning/spaces.py:HEADS")
    space.default_point(DistillConfig(), own)  # its fields exist
    (tmp_path / "mine.py").write_text("SPACE = {'method.alpha': 0.5}\n")
    monkeypatch.chdir(tmp_path)
    for name in ("mine.py:SPACE", "mine.py:OTHER"):
        with pytest.raises(ValueError, match=f"space={name} is not a dictionary of Optuna's distributions in mine.py"):
            spaces.find_space(name)
    with pytest.raises(FileNotFoundError):
        spaces.find_space("yours.py:SPACE")


def test_the_default_trial_must_lie_in_the_space() -> None:
    assert space.default_point(DistillConfig(), {"method.alpha": SPACE["method.alpha"]}) == {"method.alpha": 0.7}
    with pytest.raises(ValueError, match=r"distill\.method\.alpha=0\.7, the default trial, lies outside"):
        space.default_point(DistillConfig(), {"method.alpha": FloatDistribution(0.8, 1.0)})

    with pytest.raises(ValueError, match=r"distill\.labels\.num_clusters=48, the default trial, lies outside"):
        space.default_point(DistillConfig(), {"labels.num_clusters": CategoricalDistribution((3, 4))})


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution:UserWarning")
@pytest.mark.parametrize(
    ("configured", "choices", "expected"),
    [((4,), ((4,), (4, 8)), (4,)), ((4,), (4, (4, 8)), 4), ((4, 8), (4, (4, 8)), (4, 8))],
)
def test_the_default_trial_has_a_choice_of_several_values_as_it_is(
    configured: tuple[int, ...], choices: tuple[Any, ...], expected: object
) -> None:
    config = space.apply(DistillConfig(), {"labels.num_clusters": configured})
    several: space.Space = {"labels.num_clusters": CategoricalDistribution(choices)}
    assert space.default_point(config, several) == {"labels.num_clusters": expected}


@pytest.mark.parametrize(
    "whole", [{"optimizer.warmup_epochs": IntDistribution(0, 2)}, {"ema_decay": CategoricalDistribution((0, 0.99))}]
)
def test_the_default_trial_is_tried_once_where_the_space_has_whole_numbers(
    whole: space.Space, config: Callable[..., SweepConfig]
) -> None:
    default = space.default_point(DistillConfig(), whole)
    search = make_search(config(), whole, default, [])
    points = [search.suggest(str(number)) for number in range(int(space.num_points(whole)) + 1)]
    assert points.pop() == Searcher.FINISHED
    assert points[0] == default
    assert {space.identity(point) for point in points} == {space.identity(point) for point in space.points(whole)}


def test_labels_are_made_for_every_combination_of_their_settings() -> None:
    both = {**SPACE, "labels.starts": CategoricalDistribution((1, 2))}
    assert len(space.label_points(both)) == 4
    assert space.label_points({"method.alpha": SPACE["method.alpha"]}) == [{}]
    with pytest.raises(ValueError, match=r"labels\.num_clusters must be a CategoricalDistribution"):
        space.label_points({"labels.num_clusters": IntDistribution(2, 9)})


@given(most=st.integers(8, 200))
def test_a_grid_lies_in_the_space_with_its_ends(most: int) -> None:
    points = space.grid(SPACE, most)
    assert len(points) <= most
    assert len({space.identity(point) for point in points}) == len(points)
    assert {point["labels.num_clusters"] for point in points} == {3, 4}
    for name in ("method.alpha", "method.beta"):
        values = [point[name] for point in points]
        assert (min(values), max(values)) == pytest.approx((SPACE[name].low, SPACE[name].high))  # type: ignore[attr-defined]
        assert all(SPACE[name]._contains(value) for value in values)


@given(low=st.integers(0, 5), size=st.integers(0, 20), step=st.integers(1, 7), most=st.integers(1, 30))
def test_a_grid_of_whole_numbers_keeps_to_their_steps(low: int, size: int, step: int, most: int) -> None:
    distribution = IntDistribution(low, low + size // step * step, step=step)
    assert all(distribution._contains(point["seed"]) for point in space.grid({"seed": distribution}, most))
    shares = FloatDistribution(0.1 * low, 0.1 * low + 0.1 * (size // step * step), step=0.1 * step)
    assert all(shares._contains(point["a"]) for point in space.grid({"a": shares}, most))


def test_a_finite_space_has_so_many_points() -> None:
    assert space.num_values(CategoricalDistribution((3, 4))) == 2
    assert space.num_values(IntDistribution(2, 8, step=3)) == 3
    assert space.num_values(FloatDistribution(0.0, 1.0)) == float("inf")
    assert space.num_values(FloatDistribution(0.0, 1.0, step=0.1)) == 11
    finite = {"a": CategoricalDistribution((3, 4)), "b": IntDistribution(2, 8, step=3)}
    assert space.num_points(finite) == len(list(space.points(finite))) == 6
    assert space.num_points({**finite, "c": FloatDistribution(0.0, 1.0)}) == float("inf")


@given(epochs=st.integers(1, 200), halving=st.integers(2, 5), grace=st.floats(0.01, 0.99))
def test_rungs_rise_to_the_last_epoch(epochs: int, halving: int, grace: float) -> None:
    distill = DistillConfig(epochs=epochs)
    found = plan.rungs(SweepConfig(distill=distill, halving=halving, grace=grace))
    assert found[-1] == epochs and list(found) == sorted(set(found))
    assert all(later == halving * earlier for earlier, later in itertools.pairwise(found[:-1]))
    assert plan.rungs(SweepConfig(distill=distill, early_stopping=False)) == (epochs,)


def record(accuracies: list[float], alpha: float, state: trial.State = "finished") -> Record:
    """Return the record of a trial; each task has 10 clips in 5 groups."""
    scores = [
        Score(f"task {i}", share, (np.arange(10) < 10 * share).astype(float).tolist(), [f"g{n % 5}" for n in range(10)])
        for i, share in enumerate(accuracies)
    ]
    return Record({"method.alpha": alpha}, state, [Rung(2, mean_accuracy(scores), scores)], 1.5)


def test_trials_that_went_to_their_end_are_ranked_with_intervals_and_differences() -> None:
    bootstrap = BootstrapConfig(replicates=500, seed=0)
    records = [record([0.5, 0.7], 0.7), record([0.9, 0.9], 0.1), record([1.0, 1.0], 0.2, "stopped early")]
    ranked = result.rank(records, records[0].id, bootstrap)
    assert [each.record.point["method.alpha"] for each in ranked] == [0.1, 0.7]
    assert ranked[0].accuracy.value == pytest.approx(0.9)
    assert ranked[0].accuracy.low < 0.9 < ranked[0].accuracy.high
    assert ranked[0].difference is not None and ranked[0].difference.value == pytest.approx(0.3)
    assert ranked[1].difference is None
    without = result.rank(records[1:], records[0].id, bootstrap)
    assert without[0].difference is None  # there is no default trial to compare with
    for known, said in ((ranked, True), (without, False)):
        console = Console(width=200, file=StringIO(), force_terminal=False)
        console.print(result.to_terminal(known, records, records[0].id, "few-shot"))
        assert isinstance(console.file, StringIO)
        assert ("the default " in console.file.getvalue().replace("from the default", "")) == said
        assert "Mean few-shot on validation clips" in console.file.getvalue()


def test_the_default_trial_is_shown_beside_the_best_and_what_is_not_shown_is_counted() -> None:
    records = [record([share / 20], share / 20) for share in range(20)]
    ranked = result.rank(records, records[2].id, BootstrapConfig(replicates=100, seed=0))
    console = Console(width=200, file=StringIO(), force_terminal=False)
    console.print(result.to_terminal(ranked, records, records[2].id, "headline"))
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    assert [each.id in text for each in records] == [False, False, True, *[False] * 7, *[True] * 10]
    assert "20 trials were trained to their end, of which the 10 best and the default are shown" in " ".join(
        text.split()
    )


@pytest.mark.parametrize("first_ends_early", [False, True])
def test_the_best_of_a_sweep_is_of_trials_that_went_to_their_end(tmp_path: Path, first_ends_early: bool) -> None:
    """A trial that was stopped early has fewer epochs and can never win."""
    best, shown = list[tuple[int, float]](), list[dict[str, float]]()
    tracking: Any = SimpleNamespace(end=lambda record, ended, accuracy: best.append((ended, accuracy)))
    bar: Any = SimpleNamespace(update=lambda done, **figures: shown.append(figures))
    whole, early = record([0.6], 0.1), record([0.9], 0.2, "running")
    callback = sweep._Records(str(tmp_path), bar, tracking, 0, -math.inf)
    for each in (early, whole) if first_ends_early else (whole, early):
        each.write(str(tmp_path))
        ended: Any = SimpleNamespace(config=each.point)
        callback.on_trial_complete(0, [], ended)
    first = (1, -math.inf) if first_ends_early else (1, 0.6)
    assert best == [first, (2, 0.6)]
    assert shown == [{} if first_ends_early else {"best": 0.6}, {"best": 0.6}]


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = record([0.5], 0.3, "stopped early")
    written.write(str(tmp_path))
    assert list(trial.read_records(str(tmp_path))) == [written]


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution:UserWarning")
def test_a_space_whose_choices_have_several_values_is_resumed_and_won(
    config: Callable[..., SweepConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    several = {"labels.num_clusters": CategoricalDistribution(((3,), (3, 4), (4, 5)))}
    monkeypatch.setitem(spaces.SPACES, "several", several)
    distill = space.apply(config().distill, {"labels.num_clusters": (3,)})
    begun = plan.check(config(space="several", distill=distill))
    assert begun.default == {"labels.num_clusters": (3,)}
    for choice, state in (((3,), "finished"), ((3, 4), "running")):
        each = replace(record([0.5], 0.0, state), point={"labels.num_clusters": choice})
        each.write(begun.trials.uri)

    again = plan.check(config(space="several", distill=distill, resume=True))
    search = make_search(again.config, again.space, again.default, again.records)
    drawn = [search.suggest("1"), search.suggest("2"), search.suggest("3")]
    assert drawn == [{"labels.num_clusters": (3, 4)}, {"labels.num_clusters": (4, 5)}, Searcher.FINISHED]
    assert result.conclude(again, again.records).recipe.labels.num_clusters == (3,)
    assert sum(is_default(again.config, each) for each in again.records) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"space": "none"}, "space=none is not one of alpha-beta"),
        ({"space": "seeds"}, r"space: seed cannot be varied"),
        ({"space": "crops"}, r"space: crop\.seconds cannot be varied"),
        ({"space": "wide"}, r"method\.alpha\": 1\.5.* cannot work"),
        ({"space": "momentum"}, r"space: optimizer\.momentum has no effect with name=adamw"),
        ({"distill.fork": "/x"}, r"distill\.fork=/x: trials begin at epoch 0; give distill\.init_from"),
        ({"tasks": ()}, r"tasks=\(\) names nothing"),
        ({"distill.watch.data": ("a",)}, r"distill\.watch\.data=.* a sweep scores validation clips itself"),
        ({"tasks": ("/nowhere",)}, "/nowhere"),
        ({"search": "grid"}, r"num_trials=4 is too few for a grid of space=three: the coarsest has 9 points"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    config: Callable[..., SweepConfig], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        plan.check(config(**fields))


def test_students_do_not_learn_the_labels_that_folds_judge_them_by(config: Callable[..., SweepConfig]) -> None:
    supervised = {"distill.labels.origin": "true", "distill.teacher": ""}
    plan.check(config(**supervised))
    with pytest.raises(ValueError, match=r"labels\.origin=true: a sweep of one task judges by folds of train"):
        plan.check(config(**supervised, tasks=config().tasks[:1]))


def test_a_run_of_the_distillations_name_has_no_say_in_a_sweep(
    config: Callable[..., SweepConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNFUSED_RAY_HOME", str(tmp_path / "home"))
    other = Run(str(tmp_path / "home" / "runs" / config().distill.name))
    other.open(config().distill, {})
    CheckpointStore(other.uri).commit(Position(0, 1), {}, {})
    with pytest.raises(ValueError, match=r"init_from=.*teacher has weights that do not fit"):
        plan.check(config(**{"distill.init_from": str(tmp_path / "teacher"), "distill.encoder.width": 48}))


def test_a_sweep_says_when_no_trial_can_be_stopped_early(
    config: Callable[..., SweepConfig], caplog: pytest.LogCaptureFixture
) -> None:
    plan.check(config(**{"distill.epochs": 9}))
    assert "stopped early" not in caplog.text
    plan.check(config(**{"distill.epochs": 1}))
    assert "no trial can be stopped early: grace=0.25 of distill.epochs=1 lasts to their end" in caplog.messages


def test_what_the_sweep_decides_instead_is_named(
    config: Callable[..., SweepConfig], caplog: pytest.LogCaptureFixture
) -> None:
    plan.check(config())
    assert "is ignored" not in caplog.text
    plan.check(config(**{"distill.runtime.threads": 5}))
    assert "distill.runtime.threads=5 is ignored: trials have 1 by the sweep's settings" in caplog.messages


def test_two_tasks_of_one_name_are_refused(config: Callable[..., SweepConfig], tmp_path: Path) -> None:
    other = write_task(tmp_path / "other" / "a", 24, 12, 4)
    with pytest.raises(ValueError, match=r"another task's folder has the same name"):
        plan.check(config(tasks=(*config().tasks, other)))


def test_a_task_without_test_clips_is_refused(config: Callable[..., SweepConfig], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no test split, by which the winner is judged"):
        plan.check(config(tasks=(write_task(tmp_path / "c", 24, 12, 0),)))


@pytest.mark.parametrize("split", ["valid", "test", "test-warblrb10k", "fold3"])
def test_students_never_train_on_what_they_are_judged_by(config: Callable[..., SweepConfig], split: str) -> None:
    distill = config().distill.replace(splits=("train", split))
    with pytest.raises(ValueError, match=rf"distill\.splits=\('train', '{split}'\) has {split}: trials are judged on"):
        plan.check(config(distill=distill))


def test_a_task_whose_test_clips_have_parts_can_be_swept(config: Callable[..., SweepConfig], tmp_path: Path) -> None:
    splits = ["train", "valid", "test-ff1010bird", "test-warblrb10k"]
    write_source(tmp_path / "birds", [[24], [12], [4], [4]], LENGTHS, splits)
    assert plan.check(config(tasks=(str(tmp_path / "birds"),))).trials.by_folds


def test_a_single_task_is_folded_by_its_groups_where_they_are_few(
    config: Callable[..., SweepConfig], tmp_path: Path
) -> None:
    (tmp_path / "protocol.toml").write_text(PROTOCOL.replace("folds = 2", "folds = 5"))
    few = write_task(tmp_path / "few", 24, 12, 4, group=[f"g{i % 3}" for i in range(40)])
    prepared = plan.check(config(tasks=(few,)))
    assert (prepared.trials.by_folds, prepared.trials.protocol.probes.folds) == (True, 3)
    one = write_task(tmp_path / "one", 24, 12, 4, group=["g"] * 40)
    with pytest.raises(ValueError, match="has one group of clips in train and valid"):
        plan.check(config(tasks=(one,)))


@pytest.mark.parametrize("by_folds", [False, True])
def test_trials_are_judged_by_the_measure_that_score_names(
    config: Callable[..., SweepConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_folds: bool
) -> None:
    """The student exists already, so the record of a trial must hold its validation by that measure."""

    def trained(distill: DistillConfig) -> Status:
        write_encoder(Path(distill.output) / "student", "fc1", seed=2)
        Run(distill.output).write_history([{"epoch": 0, "seconds_train": 1.0}])
        return Status(state="finished", epoch=1, step=0)

    monkeypatch.setattr(trial.launch, "check", lambda distill: distill)
    monkeypatch.setattr(trial.launch, "run", lambda distill, in_sweep: trained(distill))
    tasks = config().tasks[: 1 if by_folds else 2]
    accuracies = {}
    for measure in MEASURES:
        prepared = plan.check(config(tasks=tasks, score=measure, output=str(tmp_path / measure)))
        console = Console(width=200, file=StringIO(), force_terminal=False)
        console.print(plan.describe(prepared))
        assert f" {measure}, {'2 folds' if by_folds else 'the mean'} " in console.file.getvalue()  # type: ignore[attr-defined]
        known = trial._advance(prepared.trials, Record(prepared.default), 1)
        (rung,) = known.rungs
        for uri, found in zip(tasks, rung.scores, strict=True):
            task = load_task(uri, VALIDATION_SPLITS)
            student = storage.join(trial.trial_uri(prepared.trials.uri, prepared.default), storage.name(uri))
            cache = EmbeddingCache(str(tmp_path / "cache"))
            (vectors,) = TrainedModel("student", student).vectors(task, prepared.trials.protocol, cache)
            labelled = Labelled(task.class_ids, task.splits, task.groups, len(task.class_names))
            expected = validate(vectors, labelled, prepared.trials.protocol.probes, by_folds)
            order = np.argsort(expected.clips)
            assert found.scores == expected.scores[measure][order].tolist()
            assert found.groups == task.groups[expected.clips[order]].tolist()
            assert found.accuracy == pytest.approx(expected.accuracy(measure))
        accuracies[measure] = known.accuracy
    assert SweepConfig().score == "headline"
    assert accuracies["headline"] == pytest.approx((accuracies["neighbours"] + accuracies["few-shot"]) / 2)
    assert len({accuracies[measure] for measure in ("neighbours", "few-shot", "linear")}) > 1


def test_a_sweep_that_was_judged_by_one_measure_is_not_resumed_by_another(config: Callable[..., SweepConfig]) -> None:
    begun = plan.check(config())
    storage.write_json(storage.join(begun.trials.uri, SWEEP), begun.record, trial.FORMAT_VERSION)
    with pytest.raises(ValueError, match=r'other settings:\s+score: "headline" → "linear"'):
        plan.check(config(resume=True, score="linear"))


@pytest.mark.parametrize(
    ("have", "fields", "gpus_per_worker", "reserved", "at_a_time"),
    [
        ({"CPU": 8, "GPU": 2}, {}, 0, {"CPU": 1, "GPU": 1}, 2),
        ({"CPU": 8, "GPU": 2}, {"gpus_per_trial": 0.4}, 0, {"CPU": 1, "GPU": 0.4}, 4),  # each trial on one GPU
        ({"CPU": 3, "GPU": 4}, {}, 0, {"CPU": 1, "GPU": 1}, 3),
        ({"CPU": 8}, {}, 0, {"CPU": 1, "GPU": 0}, 8),
        ({"CPU": 64, "GPU": 5}, {"workers_per_trial": 2}, 1, {"CPU": 0.01}, 2),
        ({"CPU": 64, "GPU": 4}, {"workers_per_trial": 2}, 2, {"CPU": 0.01}, 1),
        ({"CPU": 64, "GPU": 3}, {"workers_per_trial": 2}, 0.75, {"CPU": 0.01}, 1),
        ({"CPU": 64, "GPU": 3}, {"workers_per_trial": 1}, 0.5, {"CPU": 0.01}, 6),
    ],
)
def test_so_many_trials_run_at_a_time_as_have_gpus(
    config: Callable[..., SweepConfig],
    monkeypatch: pytest.MonkeyPatch,
    have: dict[str, float],
    fields: dict[str, Any],
    gpus_per_worker: float,
    reserved: dict[str, float],
    at_a_time: int,
) -> None:
    monkeypatch.setattr(cluster, "capacity", lambda: have)
    monkeypatch.setattr(cluster.ray, "nodes", lambda: [{"Alive": True, "Resources": have}])
    prepared = plan.check(config(distill=two_blocks(config().distill, gpus_per_worker), **fields))
    assert sweep.trial_resources(prepared.config) == reserved
    assert sweep.max_concurrent(prepared) == at_a_time


def test_workers_of_a_trial_that_would_share_a_gpu_are_refused(config: Callable[..., SweepConfig]) -> None:
    shared = config(distill=two_blocks(config().distill, 0.5), workers_per_trial=2)
    with pytest.raises(ValueError, match=r"distill\.runtime\.gpus_per_worker=0\.5 and workers_per_trial=2 put several"):
        plan.check(shared)
    plan.check(shared.replace({"workers_per_trial": 1}))


def test_workers_without_gpus_for_one_trial_are_refused(
    config: Callable[..., SweepConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "capacity", lambda: {"CPU": 64.0, "GPU": 1.0})
    prepared = plan.check(config(distill=two_blocks(config().distill, 1), workers_per_trial=2))
    message = r"workers_per_trial=2 × distill\.runtime\.gpus_per_worker=1 need 2 GPUs, the cluster has 1"
    with pytest.raises(ValueError, match=message):
        sweep.max_concurrent(prepared)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cpus_per_trial": 64}, r"cpus_per_trial=64: 1 × 64 CPUs and 0 GPUs, .* \(8 × 16 CPUs\): lower one of them"),
        ({"workers_per_trial": 2}, r"workers_per_trial=2: 2 × 20 CPUs and 0 GPUs, each on one node, do not fit"),
    ],
)
def test_a_trial_that_fits_on_the_sum_of_the_nodes_but_on_no_single_one_is_refused(
    config: Callable[..., SweepConfig], monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(cluster.ray, "cluster_resources", lambda: {"CPU": 128.0})
    monkeypatch.setattr(cluster.ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 16.0}}] * 8)
    distill = two_blocks(config().distill).replace({"runtime.cpus_per_worker": 20.0})
    with pytest.raises(ValueError, match=message):
        sweep.max_concurrent(plan.check(config(distill=distill, **fields)))


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"workers_per_trial": 2}, r"workers_per_trial=2: a trial needs 2\.81 CPUs .* the cluster has 2"),
        ({"cpus_per_trial": 3}, r"cpus_per_trial=3: a trial needs 3 CPUs .* the cluster has 2"),
    ],
)
def test_trials_that_do_not_fit_on_the_cluster_are_refused_before_anything_is_begun(
    config: Callable[..., SweepConfig], fields: dict[str, Any], message: str
) -> None:
    prepared = plan.check(config(distill=two_blocks(config().distill), **fields))
    with pytest.raises(ValueError, match=message):
        sweep.run(prepared)
    assert not [path for path in Path(prepared.trials.uri).rglob("*") if path.is_file()]


@pytest.mark.usefixtures("ray_session")
def test_paths_of_one_machine_are_refused_on_several_nodes_before_anything_is_begun(
    config: Callable[..., SweepConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = plan.check(config())
    asked: dict[str, tuple[str, ...]] = {}
    refuse = cluster.refuse_local_paths
    monkeypatch.setattr(cluster.ray, "nodes", lambda: [{"Alive": True}, {"Alive": True}])
    monkeypatch.setattr(cluster, "refuse_local_paths", lambda fields: (asked.update(fields), refuse(fields)))
    with pytest.raises(ValueError, match=rf"tasks={prepared.trials.tasks[0]} is a path of one machine"):
        sweep.run(prepared)
    teacher = prepared.config.distill.teacher
    assert asked == {"tasks": prepared.trials.tasks, "distill.teacher": (teacher,), "output": (prepared.trials.uri,)}
    assert not [path for path in Path(prepared.trials.uri).rglob("*") if path.is_file()]


def test_a_sweep_that_another_process_has_taken_over_says_so_and_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[tuple[int, str]] = []
    monkeypatch.setattr(sweep.os, "_exit", lambda code: said.append((code, caplog.text)))
    sweep._end_at_once("s3://bucket/sweep")
    ((code, text),) = said
    assert code == 1 and "another process has taken over the sweep in s3://bucket/sweep" in text


def test_a_sweep_keeps_its_space_and_what_it_runs_on(
    config: Callable[..., SweepConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = plan.check(config())
    kept = json.loads(json.dumps(begun.record))
    assert {name: json_to_distribution(json.dumps(each)) for name, each in kept["space"].items()} == SPACE
    assert kept["environment"] == environment()
    path = storage.join(begun.trials.uri, SWEEP)
    storage.write_json(path, {**kept, "environment": {"python": "3.10"}}, trial.FORMAT_VERSION)
    again = plan.check(config(resume=True))
    assert (again.id, again.record["environment"]) == (begun.id, environment())
    assert again.record["earlier_environments"] == [{"python": "3.10"}]
    monkeypatch.setitem(spaces.SPACES, "three", {**SPACE, "method.beta": FloatDistribution(1e-3, 1.0, log=True)})
    with pytest.raises(ValueError, match=r"other settings:\s+space\.method\.beta\.attributes\.high: 10\.0 → 1\.0"):
        plan.check(config(resume=True))


def test_a_sweep_whose_folder_was_moved_is_resumed_there(config: Callable[..., SweepConfig], tmp_path: Path) -> None:
    begun = plan.check(config())
    storage.write_json(storage.join(begun.trials.uri, SWEEP), begun.record, trial.FORMAT_VERSION)
    Path(begun.trials.uri).rename(tmp_path / "moved")
    assert plan.check(config(output=str(tmp_path / "moved"), resume=True)).id == begun.id


@pytest.mark.usefixtures("ray_session")
def test_a_sweep_that_was_interrupted_keeps_its_trials_and_ends_with_all(
    config: Callable[..., SweepConfig],
) -> None:
    first = config(num_trials=2)
    records = sweep.run(plan.check(first))
    assert len(records) == 2
    assert space.default_point(first.distill, SPACE) in [dict(each.point) for each in records]
    with pytest.raises(ValueError, match=r"holds a sweep: --resume resumes it"):
        plan.check(first)
    with pytest.raises(ValueError, match=r"was started with other settings:\s+search"):
        plan.check(config(resume=True, search="random"))

    other = write_encoder(Path(first.output).parent / "other" / "encoder", "fc2", seed=1)
    changed = first.distill.replace(teacher=other)
    with pytest.raises(ValueError, match=r"was started with other settings:\s+teacher: "):
        plan.check(config(resume=True, distill=changed))

    # As after a killed driver: one trial has not ended and has its last checkpoint.
    uri = first.output
    undone = max(records, key=lambda record: len(record.rungs))  # the other may have stopped early
    Record(undone.point, "running", undone.rungs[:-1], undone.seconds).write(uri)
    checkpoints = sorted(path.name for path in Path(uri, "trials", undone.id, "a", "checkpoints").iterdir())
    again = sweep.run(plan.check(config(num_trials=3, resume=True)))
    assert len(again) == 3
    assert {each.id for each in records} <= {each.id for each in again}
    assert all(each.has_ended for each in again)
    done = next(each for each in again if each.id == undone.id)
    assert [rung.accuracy for rung in done.rungs] == [rung.accuracy for rung in undone.rungs]
    assert sorted(p.name for p in Path(uri, "trials", undone.id, "a", "checkpoints").iterdir()) == checkpoints

    found = result.conclude(plan.check(config(num_trials=3, resume=True)), again)
    written = DistillConfig.model_validate_json(Path(found.recipe_uri).read_bytes())
    assert written == found.recipe
    assert (written.data, written.output, written.labels_of) == ((), "", "")
    assert written.method.alpha == found.ranked[0].record.point["method.alpha"]


def test_a_trial_goes_on_behind_its_last_rung_and_reports_that_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The killed driver may not have decided whether the trial continues from that rung."""
    trained: list[int] = []

    def advance(plan: TrialPlan, known: Record, epoch: int) -> Record:
        trained.append(epoch)
        if epoch == 9:
            raise ValueError("no space left")
        return replace(known, rungs=[*known.rungs, Rung(epoch, 0.1 * epoch, [])])

    monkeypatch.setattr(trial, "_advance", advance)
    protocol = load_protocol("").config
    trials = TrialPlan(str(tmp_path), "sweep", DistillConfig(), (), (1, 3, 9), protocol, "headline", by_folds=True)
    Record({"method.alpha": 0.5}, "running", [Rung(1, 0.3, [])]).write(trials.uri)
    told: list[dict[str, Any]] = []
    with pytest.raises(ValueError, match="no space left"):
        trial.run_trial(trials, {"method.alpha": 0.5}, told.append)
    assert trained == [3, 9]
    assert told == [{"epoch": 1, "accuracy": 0.3}, {"epoch": 3, "accuracy": pytest.approx(0.3)}]
    assert trial.read_record(trials.uri, {"method.alpha": 0.5}).message == "ValueError: no space left"


class _Tracked:
    """A tracker that keeps the ids of ended trials."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    def end(self, record: Record, num_ended: int, best: float) -> None:
        self.ended.append(record.id)


@pytest.mark.parametrize(
    ("deaths", "error", "starts"),
    [(2, "", 3), (99, "", 1 + sweep.RETRIES), (1, "ValueError: no space left", 1)],
)
def test_a_trial_whose_process_dies_goes_on_and_one_with_an_error_of_its_own_does_not(
    config: Callable[..., SweepConfig], monkeypatch: pytest.MonkeyPatch, deaths: int, error: str, starts: int
) -> None:
    prepared, tracking = plan.check(config(num_trials=2)), _Tracked()
    default, other = prepared.default, {**prepared.default, "method.alpha": 0.25}
    tried: list[list[dict[str, Any]]] = []

    def tune(each: plan.SweepPlan, missing: int, concurrent: int, tracking: object) -> None:
        """Let the other trial finish at once, and the default one fail in the first ``deaths`` calls."""
        search = make_search(each.config, each.space, each.default, each.records)
        points = [search.suggest(str(i)) for i in range(missing)] if tried else [default, other]
        tried.append([point for point in points if isinstance(point, dict)])
        for point in tried[-1]:
            if point == default and len(tried) <= deaths:
                Record(point, "failed", [], message=error or trial.PROCESS_DIED).write(each.trials.uri)
            else:
                replace(record([0.5], 0.0), point=point).write(each.trials.uri)

    for name, value in {
        "label_points": lambda space: [],
        "tracked": lambda *_: nullcontext(tracking),
        "_tune": tune,
    }.items():
        monkeypatch.setattr(sweep, name, value)
    monkeypatch.setattr(cluster, "several_nodes", lambda: "")
    sweep._run(prepared, 2, 2)
    assert tried == [[default, other], *[[default]] * (starts - 1)]
    records = {each.id: each for each in trial.read_records(prepared.trials.uri)}
    ended = records[space.identity(default)]
    assert (ended.state, ended.is_lost) == ("finished" if deaths == 2 else "failed", deaths == 99)
    assert tracking.ended == [ended.id] * ended.is_lost


@pytest.mark.parametrize(("ended", "is_one_left"), [(0, False), (1, False), (1, True), (2, True)])
def test_a_sweep_is_interrupted_unless_as_many_trials_have_ended_as_are_wanted(
    config: Callable[..., SweepConfig], monkeypatch: pytest.MonkeyPatch, ended: int, is_one_left: bool
) -> None:
    """Ray Tune returns at a Ctrl-C; by then, trials that start have no record, and some of an earlier start may be left
    because fewer trials are wanted now."""
    prepared, tracking = plan.check(config(num_trials=2)), _Tracked()
    points = [{**prepared.default, "method.alpha": alpha} for alpha in (0.25, 0.5, 0.75)]
    if is_one_left:
        Record(points[-1], "running").write(prepared.trials.uri)

    def fit(run_config: Any) -> None:
        for point in points[:ended]:
            replace(record([0.5], 0.0), point=point).write(prepared.trials.uri)
            run_config.callbacks[0].on_trial_complete(0, [], SimpleNamespace(config=point))

    def tuner(*_: object, run_config: Any, **__: object) -> SimpleNamespace:
        return SimpleNamespace(fit=lambda: fit(run_config))

    for name, value in {
        "label_points": lambda space: [],
        "tracked": lambda *_: nullcontext(tracking),
        "trial_resources": lambda config: {},
    }.items():
        monkeypatch.setattr(sweep, name, value)
    for name, value in {
        "Tuner": tuner,
        "with_parameters": lambda trainable, **_: trainable,
        "with_resources": lambda trainable, _: trainable,
    }.items():
        monkeypatch.setattr(sweep.tune, name, value)
    monkeypatch.setattr(cluster, "several_nodes", lambda: "")
    said = ""
    try:  # pytest would end at an interruption that is not expected
        sweep._run(prepared, 2, 2)
    except KeyboardInterrupt as error:
        said = str(error)
    assert ("the same command with --resume resumes it" in said) == (ended < 2)


@pytest.mark.parametrize("message", [trial.PROCESS_DIED, "ValueError: no space left"])
def test_a_sweep_is_not_concluded_while_the_process_of_its_default_trial_has_died(
    config: Callable[..., SweepConfig], monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    prepared = plan.check(config(num_trials=2))

    def end(*_: object) -> None:
        Record(prepared.default, "failed", message=message).write(prepared.trials.uri)

    for name, value in {"_run": end, "max_concurrent": lambda plan: 1}.items():
        monkeypatch.setattr(sweep, name, value)
    for name, stub in {"session": nullcontext, "refuse_local_paths": lambda fields: None}.items():
        monkeypatch.setattr(cluster, name, stub)
    lost = message == trial.PROCESS_DIED
    with pytest.raises(trial.LostTrialError, match="--resume resumes it") if lost else nullcontext():
        sweep.run(prepared)
    again = plan.check(config(num_trials=2, resume=True))  # also if no trial has begun
    assert [each.is_lost for each in again.records] == [lost]
