"""Tasks count where an anchor lies above random networks on validation clips, whatever the test clips say."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tasks import write_task

from unfused_ray.comparison import page
from unfused_ray.comparison.counting import (
    AnchorDifference,
    anchor_differences,
    counting_tasks,
    gap_closed,
    published_tasks,
)
from unfused_ray.config import Measure
from unfused_ray.evaluation import bootstrap
from unfused_ray.evaluation.bootstrap import Interval
from unfused_ray.evaluation.cells import MEASURES, Cell
from unfused_ray.evaluation.protocol import BootstrapConfig
from unfused_ray.evaluation.tasks import Task, load_task

CONFIG = BootstrapConfig(replicates=500, seed=0)
NUM_VALID, NUM_TEST = 40, 12
GROUPS = np.array([f"g{clip % 20}" for clip in range(NUM_VALID)])
RANDOM, ANCHORS = "random fc2", ("supervised", "peer")


def cell(validation: float, test: float = 0.5, linear: float | None = None, num_networks: int = 1) -> Cell:
    """A cell whose clips have these mean scores, and a little noise, by all measures but the linear one."""

    def scores(mean: float, num_clips: int) -> np.ndarray:
        noise = np.random.default_rng(0).uniform(-0.04, 0.04, (num_networks, num_clips))
        return mean + noise - noise.mean()

    def by_measure(mean: float, num_clips: int) -> dict[Measure, np.ndarray]:
        values = {"linear": mean if linear is None else linear}
        return {measure: scores(values.get(measure, mean), num_clips) for measure in MEASURES}

    return Cell(by_measure(test, NUM_TEST), by_measure(validation, NUM_VALID), GROUPS, np.ones(NUM_TEST), [], 0)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[Task]:
    folder: Path = tmp_path_factory.mktemp("tasks")
    return [load_task(write_task(folder / name, 8, 4, 4)) for name in ("birds", "bats", "frogs")]


def counted(tasks: list[Task], cells: dict[tuple[str, str], Cell], measure: Measure = "headline") -> tuple[str, ...]:
    found = anchor_differences(CONFIG, tasks, cells, ANCHORS, RANDOM)
    return counting_tasks([task.name for task in tasks], found, measure)


def table(**validation: tuple[float, float, float]) -> dict[tuple[str, str], Cell]:
    """Cells of random networks, of the supervised one and of the peer, by task."""
    rows = (RANDOM, *ANCHORS)
    return {
        (row, task): cell(value) for task, values in validation.items() for row, value in zip(rows, values, strict=True)
    }


def test_a_task_counts_by_published_encoders_alone_where_one_of_them_is_above(tasks: list[Task]) -> None:
    found = anchor_differences(
        CONFIG, tasks, table(birds=(0.5, 0.9, 0.4), bats=(0.5, 0.4, 0.9), frogs=(0.5, 0.9, 0.9)), ANCHORS, RANDOM
    )
    names = [task.name for task in tasks]
    assert counting_tasks(names, found, "headline") == ("birds", "bats", "frogs")
    assert published_tasks(names, found, ["peer"]) == ("bats", "frogs")
    assert published_tasks(names, found, []) == ()


def test_a_task_counts_where_any_anchor_is_above_random_networks(tasks: list[Task]) -> None:
    cells = table(birds=(0.5, 0.7, 0.4), bats=(0.5, 0.4, 0.45), frogs=(0.5, 0.5, 0.8))
    assert counted(tasks, cells) == ("birds", "frogs")
    assert counted(tasks, table(birds=(0.5, 0.5, 0.5), bats=(0.5, 0.1, 0.2), frogs=(0.9, 0.8, 0.8))) == ()


def test_an_anchor_whose_interval_holds_0_says_nothing(tasks: list[Task]) -> None:
    cells = table(birds=(0.5, 0.6, 0.6), bats=(0.5, 0.6, 0.6), frogs=(0.5, 0.6, 0.6))
    spread = np.where(np.arange(NUM_VALID) % 20 < 2, 1.0, 0.0)  # all that is gained is of two groups of twenty
    for measure in MEASURES:
        for anchor in ANCHORS:
            random = cells[RANDOM, "bats"].validation[measure]
            cells[anchor, "bats"].validation[measure][:] = random + spread
    found = anchor_differences(CONFIG, tasks, cells, ANCHORS, RANDOM)
    of_bats = [each for each in found if each.task == "bats"]
    assert all(each.difference.value == pytest.approx(0.1) and not each.is_above for each in of_bats)
    assert counted(tasks, cells) == ("birds", "frogs")


def test_a_task_may_count_by_one_measure_and_not_by_another(tasks: list[Task]) -> None:
    cells = table(birds=(0.5, 0.7, 0.4), bats=(0.5, 0.7, 0.4), frogs=(0.5, 0.7, 0.4))
    for row in ANCHORS:
        cells[row, "bats"] = cell(0.7, linear=0.3)
    assert counted(tasks, cells, "linear") == ("birds", "frogs")
    for measure in ("headline", "neighbours", "few-shot"):
        assert counted(tasks, cells, measure) == ("birds", "bats", "frogs")


def test_test_clips_play_no_part(tasks: list[Task]) -> None:
    cells = table(birds=(0.5, 0.7, 0.4), bats=(0.5, 0.4, 0.4), frogs=(0.5, 0.5, 0.5))
    before = anchor_differences(CONFIG, tasks, cells, ANCHORS, RANDOM)
    better_in_test = {
        (row, task): Cell(
            {measure: np.full((1, NUM_TEST), 0.1 if row == RANDOM else 1.0) for measure in MEASURES},
            each.validation,
            each.validation_groups,
            each.weights,
            [],
            0,
        )
        for (row, task), each in cells.items()
    }
    assert anchor_differences(CONFIG, tasks, better_in_test, ANCHORS, RANDOM) == before


def test_differences_are_those_of_a_paired_bootstrap_over_groups_of_validation_clips(tasks: list[Task]) -> None:
    cells = table(birds=(0.5, 0.7, 0.4), bats=(0.5, 0.6, 0.55), frogs=(0.5, 0.5, 0.5))
    cells |= {(RANDOM, task.name): cell(0.5, num_networks=3) for task in tasks}
    found = anchor_differences(CONFIG, tasks, cells, ANCHORS, RANDOM)
    named = [(each.task, each.measure, each.anchor) for each in found]
    assert named == [(task.name, measure, anchor) for task in tasks for measure in MEASURES for anchor in ANCHORS]
    for each in found:
        scores = [cells[row, each.task].validation[each.measure] for row in (each.anchor, RANDOM)]
        drawn = [
            bootstrap.deviations(scores_SV, GROUPS, 500, 0, f"validation clips of {each.task}").accuracies
            for scores_SV in scores
        ]
        low, high = np.quantile(drawn[0] - drawn[1], (0.025, 0.975))
        assert each.difference.value == pytest.approx(scores[0].mean() - scores[1].mean())
        assert (each.difference.low, each.difference.high) == pytest.approx((low, high))
        assert each.is_above == (low > 0)


def test_without_anchors_all_tasks_count(tasks: list[Task]) -> None:
    for cells in (table(birds=(0.9, 0.1, 0.1), bats=(0.9, 0.1, 0.1), frogs=(0.9, 0.1, 0.1)), {}):
        assert anchor_differences(CONFIG, tasks, cells, (), RANDOM) == ()  # random networks may still be to come
    assert counting_tasks(["birds", "bats", "frogs"], (), "headline") == ("birds", "bats", "frogs")


def test_an_interval_that_is_not_known_makes_no_task_count() -> None:
    unknown = AnchorDifference("birds", "headline", "peer", Interval(0.3, float("nan"), float("nan")))
    assert counting_tasks(["birds"], [unknown], "headline") == ()


def test_the_gap_is_that_from_random_networks_to_the_best_anchor_of_each_task() -> None:
    random = np.array([0.50, 0.40])
    anchors = np.array([[0.70, 0.45], [0.60, 0.60]])  # the best: 0.70 and 0.60, together 0.20 + 0.20 above random
    assert gap_closed(np.array([0.60, 0.50]), anchors, random) == pytest.approx(0.5)
    assert gap_closed(np.array([0.65, 0.35]), anchors, random) == pytest.approx(0.25)  # +0.15 and -0.05
    assert gap_closed(random, anchors, random) == 0
    assert gap_closed(np.array([0.40, 0.40]), anchors, random) == pytest.approx(-0.25)
    assert gap_closed(np.array([0.80, 0.70]), anchors, random) == 1  # no more than all of it
    assert gap_closed(np.array([0.90, 0.50]), anchors, random) == pytest.approx(0.75)  # +0.20 of +0.40, and +0.10
    assert gap_closed(anchors[0], anchors, random) == pytest.approx(0.625)  # an anchor that is the best of one task


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=6))
def test_a_gap_that_is_not_there_is_not_closed(values: list[tuple[float, float, float, float]]) -> None:
    row, first, second, random = np.array(values).T
    closed = gap_closed(row, np.array([first, second]), random)
    if (np.maximum(first, second) <= random).all():
        assert closed is None
    assert closed is None or closed <= 1 + 1e-9
    best = gap_closed(np.maximum(np.maximum(first, second), random), np.array([first, second]), random)
    assert best is None or best == pytest.approx(1)


def test_a_supervised_anchor_is_not_asked_about_labels_that_it_has_learnt(tmp_path: Path) -> None:
    """Without validation clips parts of train are held out, on whose labels it has trained."""
    tasks = [load_task(write_task(tmp_path / "held-out", 8, 4, 4)), load_task(write_task(tmp_path / "none", 8, 0, 4))]
    cells = {
        (row, task.name): cell(value)
        for task in tasks
        for row, value in zip((RANDOM, *ANCHORS), (0.5, 0.9, 0.5), strict=True)
    }
    asked = anchor_differences(CONFIG, tasks, cells, ANCHORS, RANDOM, supervised=["supervised"])
    assert {(each.task, each.anchor) for each in asked} == {
        ("held-out", "supervised"),
        ("held-out", "peer"),
        ("none", "peer"),
    }
    assert counting_tasks(["held-out", "none"], asked, "headline") == ("held-out",)


@pytest.mark.parametrize(("valid", "ending"), [(4, "nothing says which of them count"), (0, "it would be judged by")])
def test_the_text_under_a_table_says_why_an_anchor_was_not_asked(tmp_path: Path, valid: int, ending: str) -> None:
    task = load_task(write_task(tmp_path / "frogs", 8, valid, 4))
    results: Any = SimpleNamespace(
        anchors=(),
        plan=SimpleNamespace(random=RANDOM, anchors=["supervised"], supervised=["supervised"]),
        rows=[SimpleNamespace(row=SimpleNamespace(name="supervised"))],
        evaluation=SimpleNamespace(tasks=[task]),
    )
    text = page._counted(results)
    assert text.endswith(ending)  # the caller ends the sentence
    assert ("count. supervised is not asked about frogs, without validation clips" in text) == (not valid)
