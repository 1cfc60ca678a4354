"""Bootstrap intervals equal a loop over the groups drawn, are paired, and are as wide as theory says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from unfused_ray.audio import randomness
from unfused_ray.evaluation import bootstrap
from unfused_ray.evaluation.bootstrap import (
    Deviations,
    Interval,
    deviations,
    difference,
    distinct_groups,
    expansion,
    interval,
    mean_over_tasks,
    p_value,
    tails,
)


def replicates(*arguments: object) -> np.ndarray:
    """Return the accuracies of bootstrap samples."""
    return deviations(*arguments).accuracies  # type: ignore[arg-type]


@st.composite
def outcomes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Draw correct or wrong answers of 1 to 4 seeds, and the clips' groups; some groups have an empty name."""
    num_clips = draw(st.integers(1, 30))
    groups = draw(st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=num_clips, max_size=num_clips))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    return rng.random((draw(st.integers(1, 4)), num_clips)) < 0.6, np.array(groups)


def several_groups(drawn: tuple[np.ndarray, np.ndarray]) -> bool:
    return distinct_groups(drawn[1]).max() > 0


@given(outcomes())
@settings(max_examples=50)
def test_replicates_equal_a_loop_over_the_groups_drawn_and_the_weighted_seeds_widened(
    drawn: tuple[np.ndarray, np.ndarray],
) -> None:
    correct_SN, groups_N = drawn
    num_seeds = len(correct_SN)
    names = [group or f"clip {clip} of t" for clip, group in enumerate(groups_N.tolist())]
    of_name = {name: counts_of(name, 5)[:20] for name in names}
    weights = randomness.generator(5, "bootstrap seeds").standard_normal((20, num_seeds))
    expected = []
    for replicate, of_seeds in enumerate(weights):
        of_clips = [of_name[name][replicate] for name in names]
        by_seed = [average(correct_N, of_clips) for correct_N in correct_SN]
        widened = expansion(len(of_name)) * (np.mean(by_seed) - correct_SN.mean())
        if num_seeds > 1:
            standard = np.sqrt(num_seeds * (num_seeds - 1))
            widened += tails(num_seeds) * sum((by_seed - np.mean(by_seed)) * of_seeds) / standard
        expected.append(correct_SN.mean() + widened)
    assert np.allclose(replicates(correct_SN, groups_N, 20, 5, "t"), expected, atol=1e-12, equal_nan=True)


def average(correct_N: np.ndarray, of_clips: Sequence[float]) -> float:
    """Return the mean over a sample's clips, or over all clips if the sample is empty."""
    return float(np.average(correct_N, weights=of_clips if any(of_clips) else None))


def counts_of(name: str, seed: int) -> np.ndarray:
    """Return how often a group is in each of 100 samples."""
    return randomness.generator(seed, f"bootstrap group {name}").poisson(1.0, 100).astype(float)


@given(outcomes().filter(several_groups), st.integers(0, 2**31 - 1))
@settings(max_examples=50)
def test_a_row_minus_itself_is_exactly_zero_and_a_perfect_row_exactly_one(
    drawn: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    correct_SN, groups_N = drawn
    first, second = (replicates(correct_SN, groups_N, 50, seed, "t") for _ in range(2))
    assert difference(0.5, first, 0.5, second) == Interval(0, 0, 0)
    perfect = replicates(np.ones_like(correct_SN), groups_N, 50, seed, "t")
    assert interval(1.0, perfect) == Interval(1, 1, 1)
    assert np.allclose(difference(0, first, 1, perfect).low, max(-1, np.quantile(first, 0.025) - 1))


@given(outcomes(), st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_the_order_of_clips_in_named_groups_changes_nothing(
    drawn: tuple[np.ndarray, np.ndarray], random: np.random.Generator
) -> None:
    correct_SN, groups_N = drawn
    named_N = np.where(groups_N == "", "d", groups_N)
    order = list(range(len(named_N)))
    random.shuffle(order)
    before = replicates(correct_SN, named_N, 30, 1, "t")
    assert np.array_equal(before, replicates(correct_SN[:, order], named_N[order], 30, 1, "t"), equal_nan=True)


def test_the_interval_of_one_group_alone_cannot_be_known() -> None:
    correct_SN, groups_N = np.array([[True, False, True, True]]), np.array(["a"] * 4)
    drawn = deviations(correct_SN, groups_N, 100, 0, "t")
    assert drawn.accuracy == 0.75
    assert not drawn.by_clips.any()
    assert drawn.num_groups == 1
    assert np.isnan(interval(0.75, drawn.accuracies).low)
    assert np.isnan(p_value([drawn], [deviations(~correct_SN, groups_N, 100, 0, "t")]))


def test_a_clip_without_a_group_is_a_group_of_its_own() -> None:
    ids_N = distinct_groups(np.array(["", "b", "", "a", "b"]))
    assert ids_N[1] == ids_N[4]
    assert sorted(set(ids_N.tolist())) == [0, 1, 2, 3]


def test_draws_of_groups_do_not_depend_on_the_number_of_seeds() -> None:
    row = np.random.default_rng(0).random((1, 200)) < 0.7
    groups = np.full(200, "")
    one, five = replicates(row, groups, 500, 3, "t"), replicates(np.repeat(row, 5, axis=0), groups, 500, 3, "t")
    assert np.allclose(one, five, atol=1e-12)


def test_clips_without_a_group_are_independent_in_two_tasks_and_seeds_are_not() -> None:
    row = np.random.default_rng(0).random((1, 300)) < 0.5
    groups = np.full(300, "")
    a, b = (replicates(row, groups, 4000, 3, task) for task in ("a", "b"))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.06
    assert np.isclose(mean_over_tasks([a, b]).std(), a.std() / np.sqrt(2), rtol=0.06)
    seeds = np.repeat([[True], [False], [False]], 300, axis=1)
    a, b = (replicates(seeds, groups, 100, 3, task) for task in ("a", "b"))
    assert a.std() > 0
    assert np.array_equal(a, b)


@given(outcomes(), outcomes())
@settings(max_examples=30)
def test_a_mean_over_tasks_equals_a_loop_in_which_a_group_is_drawn_equally_often_in_all_of_them(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]
) -> None:
    tasks = {"t": (first[0][:1], first[1]), "u": (second[0][:1], second[1])}
    found = mean_over_tasks([deviations(*task, 20, 5, name).by_clips for name, task in tasks.items()])
    expected = np.zeros(20)
    for name, (correct_1N, groups_N) in tasks.items():
        of_clips = [counts_of(g or f"clip {clip} of {name}", 5)[:20] for clip, g in enumerate(groups_N.tolist())]
        for replicate in range(20):
            weighted = average(correct_1N[0], [each[replicate] for each in of_clips])
            expected[replicate] += (weighted - correct_1N.mean()) / 2
    assert np.allclose(found, expected, atol=1e-12)


def twice(shared: bool, rng: np.random.Generator, num_groups: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Draw two equally good systems on two tasks with the same groups, or with other groups of the same names."""
    groups_N = np.repeat(np.arange(num_groups).astype(str), 5)
    effects = [rng.normal(0, 0.2, (2, num_groups)) for _ in range(2)]
    of_tasks = []
    for task in range(2):
        quality = 0.6 + effects[0 if shared else task]
        a_N, b_N = (rng.random(len(groups_N)) < np.repeat(each, 5) for each in quality)
        of_tasks.append((a_N[None], b_N[None], groups_N))
    return of_tasks


@pytest.mark.parametrize(("shared", "num_groups"), [(True, 20), (False, 20), (True, 5), (False, 5)])
def test_intervals_and_p_of_a_mean_over_tasks_are_right_where_groups_are_the_same_and_where_names_alone_are(
    shared: bool, num_groups: int
) -> None:
    """The true difference is 0. If tasks share groups but are drawn apart, the interval excludes 0 too often."""
    rng = np.random.default_rng(0)
    num_trials = 200
    together = apart = small = 0
    for trial in range(num_trials):
        rows: dict[bool, list[list[Deviations]]] = {True: [[], []], False: [[], []]}
        for task, (*systems, groups_N) in enumerate(twice(shared, rng, num_groups)):
            for alike in (True, False):
                names = groups_N if alike else np.char.add(f"{task} ", groups_N)
                for row, scores in zip(rows[alike], systems, strict=True):
                    row.append(deviations(scores, names, 200, trial, str(task)))
        ends = {}
        for alike, (a, b) in rows.items():
            values = [np.mean([of.accuracy for of in row]) for row in (a, b)]
            drawn = [mean_over_tasks([of.accuracies for of in row]) for row in (a, b)]
            ends[alike] = difference(values[0], drawn[0], values[1], drawn[1])
        together += not ends[True].low <= 0 <= ends[True].high
        apart += not ends[False].low <= 0 <= ends[False].high
        small += p_value(*rows[True]) < 0.05
    assert together / num_trials <= 0.075
    assert small / num_trials <= 0.075
    if num_groups == 20:  # intervals of five groups are too wide to compare
        assert together / num_trials >= 0.02
        assert not shared or apart > 1.5 * together


def test_tasks_that_share_all_groups_have_the_p_of_one() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.random((1, 12)) < chance for chance in (0.9, 0.4)]
    groups_N = np.arange(12).astype(str)
    one = [[deviations(row, groups_N, 4000, 0, "t")] for row in rows]
    three = [[deviations(row, groups_N, 4000, 0, task) for task in "tuv"] for row in rows]
    assert p_value(*three) == pytest.approx(p_value(*one))


def test_many_groups_are_drawn_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    row = np.random.default_rng(0).random((1, 300)) < 0.5
    groups = np.full(300, "")
    many = replicates(row, groups, 150, 3, "t")
    assert len(np.unique(many)) > 100
    monkeypatch.setattr(bootstrap, "_DRAWS_PER_CHUNK", 1000)
    assert np.allclose(many, replicates(row, groups, 150, 3, "t"), atol=1e-12)
    assert np.allclose(many[:20], replicates(row, groups, 20, 3, "t"), atol=1e-12)


def test_the_interval_of_single_clips_is_the_binomial_one() -> None:
    correct = np.arange(400) < 280
    found = interval(0.7, replicates(correct[None], np.full(400, ""), 10_000, 0, "t"))
    half = 1.96 * np.sqrt(0.7 * 0.3 / 400)
    assert np.allclose([found.low, found.high], [0.7 - half, 0.7 + half], atol=0.004)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        groups_correct = np.repeat(rng.random(80) < 0.6, 3)  # clips of a group are all right or all wrong
        draws = replicates(groups_correct[None], np.repeat(np.arange(80).astype(str), 3), 400, trial, "t")
        found = interval(groups_correct.mean(), draws)
        covered += found.low <= 0.6 <= found.high
    assert 0.90 <= covered / 200 <= 0.99


@pytest.mark.parametrize(
    ("num_groups", "t"),  # 97.5 % quantiles of Student's t with G - 1 degrees of freedom, from a printed table
    [(2, 12.706), (3, 4.303), (6, 2.571), (9, 2.306), (25, 2.064), (61, 2.000)],
)
def test_few_groups_widen_deviations_by_the_factors_of_students_t(num_groups: int, t: float) -> None:
    # Closed form of the mean of 1/n over a Poisson distribution's n > 0.
    share = np.exp(-num_groups) * (special.expi(num_groups) - np.log(num_groups) - np.euler_gamma)
    factor = t / 1.95996 / np.sqrt((num_groups - 1) * share)
    assert expansion(num_groups) == pytest.approx(factor, rel=3e-4)
    groups = frozenset(map(str, range(num_groups)))
    found = Deviations(0.5, np.array([-0.1, 0, 0.2]), np.zeros(3), groups, 1).accuracies
    assert found == pytest.approx([0.5 - 0.1 * factor, 0.5, 0.5 + 0.2 * factor], rel=3e-4)


def test_a_gain_of_two_groups_of_twenty_is_not_told_from_none() -> None:
    """With weights that are always positive, any gain would be certain if no group loses."""
    gains_N = (np.arange(20) < 2).astype(float)
    drawn = deviations(gains_N[None], np.arange(20).astype(str), 4000, 0, "t").accuracies
    assert interval(0.1, drawn).low == 0


def of_seeds_alone(*systems: Sequence[float]) -> list[Deviations]:
    """Return systems with these accuracies of their seeds, the same for any drawn clips."""
    return [deviations(np.repeat([[of] for of in each], 9, axis=1), np.full(9, ""), 40_000, 0, "t") for each in systems]


@given(st.lists(st.tuples(st.floats(0.49, 0.51), st.floats(0.49, 0.51)), min_size=2, max_size=6))
@settings(max_examples=20, deadline=None)
def test_where_seeds_alone_vary_the_interval_of_a_difference_is_that_of_a_paired_t_test(
    accuracies: list[tuple[float, float]],
) -> None:
    first, second = zip(*accuracies, strict=True)
    a, b = of_seeds_alone(first, second)
    found = difference(a.accuracy, a.accuracies, b.accuracy, b.accuracies)
    expected = stats.ttest_rel(first, second)
    ends = expected.confidence_interval()
    assert [found.low, found.high] == pytest.approx(list(ends), abs=0.02 * (ends.high - ends.low) + 1e-9)
    if ends.high - ends.low > 1e-6 and not 0.045 < expected.pvalue < 0.055:
        assert (found.low > 0 or found.high < 0) == (p_value([a], [b]) < 0.05) == (expected.pvalue < 0.05)


def test_two_systems_that_differ_where_nothing_varies_are_not_called_certain() -> None:
    right, wrong = (deviations(np.full((1, 2), of), np.array(["a", "b"]), 100, 0, "t") for of in (True, False))
    assert np.isnan(p_value([right], [wrong]))
    assert p_value([right], [right]) == 1


def test_intervals_end_where_accuracies_and_differences_do() -> None:
    low, high = np.full(10, -2.0), np.full(10, 2.0)
    assert interval(0.5, np.concatenate([low, high])) == Interval(0.5, 0, 1)
    assert difference(0.5, np.concatenate([low, high]), 0.5, np.zeros(20)) == Interval(0, -1, 1)


def test_with_few_groups_widened_intervals_of_a_difference_cover_it_where_plain_ones_miss_it() -> None:
    """Two equally good systems, each better on some speakers than on others: the true difference is 0."""
    rng = np.random.default_rng(0)
    num_groups, num_trials = 5, 300
    groups_N = np.repeat(np.arange(num_groups).astype(str), 20)
    plain = wide = 0
    for trial in range(num_trials):
        a_N, b_N = (rng.random(100) < np.repeat(rng.normal(0.6, 0.12, num_groups), 20) for _ in range(2))
        drawn = [deviations(row_N[None], groups_N, 400, trial, "t") for row_N in (a_N, b_N)]
        a, b = (of.accuracy for of in drawn)
        narrow = difference(a, a + drawn[0].by_clips, b, b + drawn[1].by_clips)
        found = difference(a, drawn[0].accuracies, b, drawn[1].accuracies)
        plain += narrow.low <= 0 <= narrow.high
        wide += found.low <= 0 <= found.high
    assert plain / num_trials < 0.92 <= wide / num_trials <= 0.985


@pytest.mark.parametrize("rival_seeds", [3, 10])
def test_of_three_seeds_a_difference_of_nothing_is_called_one_no_more_often_than_the_level_says(
    rival_seeds: int,
) -> None:
    """Two equally good systems on many clips of two tasks; seeds differ by more than clips do."""
    rng = np.random.default_rng(0)
    num_trials, groups_N = 300, np.repeat(np.arange(150).astype(str), 2)
    plain = missed = small = smaller = 0
    for trial in range(num_trials):
        drawn = []
        for num_seeds in (3, rival_seeds):
            quality_S = 0.6 + rng.normal(0, 0.05, num_seeds)
            rows = [rng.random((num_seeds, 300)) * 0.999 < quality_S[:, None] for _ in range(2)]
            drawn.append([deviations(row, groups_N, 300, trial, task) for row, task in zip(rows, "uv", strict=True)])
        means = [np.mean([of.accuracy for of in system]) for system in drawn]
        widened = [mean_over_tasks([of.accuracies for of in system]) for system in drawn]
        without = [mean_over_tasks([of.accuracy + of.by_clips + of.by_seeds for of in system]) for system in drawn]
        narrow, found = (difference(means[0], of[0], means[1], of[1]) for of in (without, widened))
        plain += not narrow.low <= 0 <= narrow.high
        missed += not found.low <= 0 <= found.high
        p = p_value(*drawn)
        small += p < 0.05
        smaller += p < 0.01
    assert plain > 3 * missed
    assert missed / num_trials < 0.07
    assert small / num_trials < 0.07
    assert smaller / num_trials < 0.02


def test_p_is_that_of_a_paired_t_test_where_every_group_is_one_clip() -> None:
    rng = np.random.default_rng(0)
    first_N, second_N = rng.random(60) < 0.7, rng.random(60) < 0.5
    drawn = [deviations(row_N[None], np.full(60, ""), 20_000, 0, "t") for row_N in (first_N, second_N)]
    expected = stats.ttest_rel(first_N.astype(float), second_N.astype(float)).pvalue
    assert p_value([drawn[0]], [drawn[1]]) == pytest.approx(expected, rel=0.1)
    assert p_value([drawn[0]], [drawn[0]]) == 1


def test_p_is_that_of_a_paired_t_test_of_the_seeds_where_clips_do_not_differ() -> None:
    """The variation by clips is set to zero, so only seeds vary."""
    groups_N = np.full(2000, "")
    rows = [np.stack([np.arange(2000) % 10 < tenths for tenths in system]) for system in ((5, 6, 8), (4, 6, 5))]
    drawn = [deviations(row_SN, groups_N, 20_000, 0, "t") for row_SN in rows]
    alone = [replace(of, by_clips=np.zeros(20_000)) for of in drawn]
    expected = stats.ttest_rel(*(row_SN.mean(axis=1) for row_SN in rows)).pvalue
    assert p_value([alone[0]], [alone[1]]) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("shape", [(0, 3), (1, 0), (1, 2), (3,)])
def test_shapes_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a column for each test clip"):
        replicates(np.ones(shape, bool), np.full(3 if shape[-1] else 0, ""), 10, 0, "t")
