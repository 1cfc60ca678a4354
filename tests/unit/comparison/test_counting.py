"""Tasks count if an anchor is above random networks on validation clips; test clips play no part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
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
from unfused_ray.evaluation.bootstrap import Deviations, Interval
from unfused_ray.evaluation.cells import MEASURES, Cell
from unfused_ray.evaluation.protocol import BootstrapConfig
from unfused_ray.evaluation.tasks import Task, load_task

CONFIG = BootstrapConfig(replicates=500, seed=0)
NUM_VALID, NUM_TEST = 40, 12
GROUPS = np.array([f"g{clip % 20}" for clip in range(NUM_VALID)])
RANDOM, ANCHORS = "random fc2", ("supervised", "peer")


def cell(validation: float, test: float = 0.5, linear: float | None = None, num_networks: int = 1) -> Cell:
    """Return a cell with these mean scores and a little noise; ``linear`` replaces the means by the linear measure."""

    def scores(mean: float, num_clips: int) -> np.ndarray:
        noise = np.random.default_rng(0).uniform(-0.04, 0.04, (num_networks, num_clips))
        return mean + noise - noise.mean()

    def by_measure(mean: float, num_clips: int) -> dict[Measure, np.ndarray]:
        values = {"linear": mean if linear is None else linear}
        return {measure: scores(values.get(measure, mean), num_clips) for measure in MEASURES}

    return Cell(
        by_measure(test, NUM_TEST),
        by_measure(validation, NUM_VALID),
        np.arange(NUM_VALID),
        GROUPS,
        np.ones(NUM_TEST),
        [],
        0,
    )


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[Task]:
    folder: Path = tmp_path_factory.mktemp("tasks")
    return [load_task(write_task(folder / name, 8, 4, 4)) for name in ("birds", "bats", "frogs")]


def counted(tasks: list[Task], cells: dict[tuple[str, str], Cell], measure: Measure = "headline") -> tuple[str, ...]:
    found = anchor_differences(CONFIG, tasks, cells, ANCHORS, RANDOM)
    return counting_tasks([task.name for task in tasks], found, measure)


def table(**validation: tuple[float, float, float]) -> dict[tuple[str, str], Cell]:
    """Return the cells of random networks, the supervised network and the peer, by row and task."""
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
    spread = np.where(np.arange(NUM_VALID) % 20 < 2, 1.0, 0.0)  # the whole gain is in two groups of twenty
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
            each.validation_clips,
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
        assert anchor_differences(CONFIG, tasks, cells, (), RANDOM) == ()  # random networks may be missing
    assert counting_tasks(["birds", "bats", "frogs"], (), "headline") == ("birds", "bats", "frogs")


def test_an_interval_that_is_not_known_makes_no_task_count() -> None:
    unknown = AnchorDifference("birds", "headline", "peer", Interval(0.3, float("nan"), float("nan")))
    assert counting_tasks(["birds"], [unknown], "headline") == ()


def still(accuracies: Sequence[float] | np.ndarray) -> list[Deviations]:
    """Return a system with these accuracies on its tasks, the same in every sample."""
    return [Deviations(of, np.zeros(50), np.zeros(50), frozenset("abc"), 1) for of in accuracies]


def closed_of(row: Sequence[float], anchors: Sequence[Sequence[float]], random: Sequence[float]) -> float | None:
    found = gap_closed(still(row), [still(anchor) for anchor in anchors], still(random))
    assert found is None or found.low == found.high == pytest.approx(found.value)
    return None if found is None else found.value


def test_the_gap_is_that_from_random_networks_to_the_best_anchor_of_each_task() -> None:
    random = [0.50, 0.40]
    anchors = [[0.70, 0.45], [0.60, 0.60]]  # best: 0.70 and 0.60, in sum 0.20 + 0.20 above random
    assert closed_of([0.60, 0.50], anchors, random) == pytest.approx(0.5)
    assert closed_of([0.65, 0.35], anchors, random) == pytest.approx(0.25)  # +0.15 and -0.05
    assert closed_of(random, anchors, random) == 0
    assert closed_of([0.40, 0.40], anchors, random) == pytest.approx(-0.25)
    assert closed_of([0.80, 0.70], anchors, random) == 1  # no more than the whole gap
    assert closed_of([0.90, 0.50], anchors, random) == pytest.approx(0.75)  # +0.20 of +0.40, and +0.10
    assert closed_of(anchors[0], anchors, random) == pytest.approx(0.625)  # it is the best of one task


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=6))
@settings(max_examples=30)
@example([(0.0, 0.0, 1e-18, 0.0)])
def test_a_gap_that_is_not_there_is_not_closed(values: list[tuple[float, float, float, float]]) -> None:
    row, first, second, random = np.array(values).T
    found = gap_closed(still(row), [still(first), still(second)], still(random))
    if (np.maximum(first, second) <= random).all():
        assert found is None
    assert found is None or found.value <= 1 + 1e-9
    best = gap_closed(
        still(np.maximum(np.maximum(first, second), random)), [still(first), still(second)], still(random)
    )
    assert best is None or best.value == pytest.approx(1)


def drawn(rng: np.random.Generator, accuracies: Sequence[float] | np.ndarray, spread: float = 0.05) -> list[Deviations]:
    """Return a system with 50 samples around these accuracies, by task."""
    return [Deviations(of, rng.normal(0, spread, 50), np.zeros(50), frozenset("abcdef"), 1) for of in accuracies]


@given(st.integers(0, 10_000), st.integers(1, 4))
@settings(max_examples=30)
def test_the_interval_of_a_gap_is_that_of_a_loop_over_the_samples(seed: int, num_tasks: int) -> None:
    """The best anchor, and the tasks where the row reaches it, are those of all clips in every sample."""
    rng = np.random.default_rng(seed)
    random = drawn(rng, rng.uniform(0.2, 0.4, num_tasks))
    row, *anchors = (drawn(rng, rng.uniform(0.4, 0.9, num_tasks)) for _ in range(3))
    found = gap_closed(row, anchors, random)
    assert found is not None
    shares, gaps = [], []
    best = [max((anchor[task] for anchor in anchors), key=lambda each: each.accuracy) for task in range(num_tasks)]
    mine, best_samples, of_random = ([task.accuracies for task in system] for system in (row, best, random))
    for sample in range(50):
        closed = gap = 0.0
        for task in range(num_tasks):
            goal = best_samples[task][sample] - of_random[task][sample]
            reached = row[task].accuracy >= best[task].accuracy
            closed += goal if reached else mine[task][sample] - of_random[task][sample]
            gap += goal
        shares.append(closed / max(gap, 1e-9))
        gaps.append(gap)
    if np.quantile(gaps, 0.025) > 0:
        expected = np.minimum(np.quantile(shares, [0.025, 0.975]), 1)
        assert [found.low, found.high] == pytest.approx(expected.tolist())
    else:
        assert np.isnan([found.low, found.high]).all()


def test_of_a_gap_that_could_be_none_no_interval_is_known() -> None:
    rng = np.random.default_rng(0)
    row, anchor, random = (drawn(rng, [of], 0.1) for of in (0.5, 0.6, 0.4))
    found = gap_closed(row, [anchor], random)
    assert found is not None and found.value == pytest.approx(0.5) and np.isnan(found.low)
    assert page._share(found) == "50 % (–)"
    alone = [Deviations(of, np.zeros(50), np.zeros(50), frozenset("a"), 1) for of in (0.5, 0.6, 0.4)]
    found = gap_closed([alone[0]], [[alone[1]]], [alone[2]])  # one group gives no interval
    assert found is not None and found.value == pytest.approx(0.5) and np.isnan(found.high)
    assert page._share(Interval(-0.19, -0.254, 0.1)) == "-19 % (-25 … 10)"


def test_random_networks_close_nothing_for_sure_and_the_best_anchor_all() -> None:
    rng = np.random.default_rng(0)
    anchor, random = drawn(rng, [0.8, 0.9]), drawn(rng, [0.4, 0.5])
    assert gap_closed(random, [anchor], random) == Interval(0, 0, 0)
    assert gap_closed(anchor, [anchor], random) == Interval(1, 1, 1)


def test_a_supervised_anchor_is_not_asked_about_labels_that_it_has_learnt(tmp_path: Path) -> None:
    """A task without validation clips holds out parts of train, and the supervised anchor has learnt their labels."""
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


@pytest.mark.parametrize(
    ("valid", "ending"), [(4, "it is not known which of them count"), (0, "the labels that would judge it")]
)
def test_the_text_under_a_table_says_why_an_anchor_was_not_asked(tmp_path: Path, valid: int, ending: str) -> None:
    task = load_task(write_task(tmp_path / "frogs", 8, valid, 4))
    results: Any = SimpleNamespace(
        anchors=(),
        plan=SimpleNamespace(random=RANDOM, anchors=["supervised"], supervised=["supervised"]),
        rows=[SimpleNamespace(row=SimpleNamespace(name="supervised"))],
        evaluation=SimpleNamespace(tasks=[task]),
    )
    text = page._counted(results)
    assert text.endswith(ending)  # the caller completes the sentence
    assert ("count. supervised is not tested on frogs, without validation clips" in text) == (not valid)
