"""Intervals of accuracies and of their differences, by a paired bootstrap over groups of clips with seeds nested.

Clips of one recording or speaker stand or fall together, so groups are drawn, never single clips. Of
a system with several seeds, as random networks have, the seeds are drawn too: its interval covers another network. A
trained system is one training: its interval is of test clips alone, and says nothing of another pre-training.
Percentile intervals: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13; they are too narrow where
groups or seeds are few, see :func:`expansion`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from unfused_ray.audio import randomness

_TAILS = (0.025, 0.975)
_DRAWS_PER_CHUNK = 2**21  # 16 MB of draws at a time: 10,000 replicates of 3,000 groups at once would be 240 MB


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; both ends are NaN where none can be known."""

    value: float
    low: float
    high: float


def distinct_groups(groups_N: np.ndarray) -> np.ndarray:
    """Which distinct group each clip is in: ``(N,)`` int64, dense from 0; a clip without a group ("") is its own."""
    names, ids_N = np.unique(groups_N, return_inverse=True)
    ids_N = ids_N.astype(np.int64)
    alone = groups_N == ""
    ids_N[alone] = len(names) + np.arange(alone.sum())
    return np.unique(ids_N, return_inverse=True)[1].astype(np.int64)


@dataclass(frozen=True)
class Deviations:
    """How far bootstrap samples of a system on a task are from its accuracy, as drawn: nothing is widened."""

    accuracy: float
    """Weighted over the test clips, the mean over the seeds."""
    by_clips: np.ndarray
    """Of the groups drawn, the mean over all seeds: (R,) float64."""
    by_seeds: np.ndarray
    """Of the seeds drawn, in the same groups: (R,) float64; 0 of one seed."""
    num_groups: int
    """G, of the task's test clips."""
    num_seeds: int
    """S."""

    @property
    def accuracies(self) -> np.ndarray:
        """Accuracies of the samples: (R,) float64, NaN of one group."""
        widened_R = expansion(self.num_groups) * self.by_clips
        if self.num_seeds > 1:
            widened_R = widened_R + expansion(self.num_seeds) * self.by_seeds
        return self.accuracy + widened_R


def replicates(
    correct_SN: np.ndarray,
    groups_N: np.ndarray,
    num_replicates: int,
    seed: int,
    task: str,
    weights_N: np.ndarray | None = None,
) -> np.ndarray:
    """Accuracies of bootstrap samples of one task's test clips, as wide as few groups and seeds need: ``(R,)`` float64.

    Arguments and errors are those of :func:`deviations`. Deviations by the groups drawn are widened by the expansion of
    the number of groups, deviations by the seeds drawn by that of the number of seeds: replicates of two systems with
    the same seeds stay paired. Hesterberg reads percentiles further out instead; of three groups there are no such
    percentiles.
    """
    return deviations(correct_SN, groups_N, num_replicates, seed, task, weights_N).accuracies


def deviations(
    correct_SN: np.ndarray,
    groups_N: np.ndarray,
    num_replicates: int,
    seed: int,
    task: str,
    weights_N: np.ndarray | None = None,
) -> Deviations:
    """Draw ``num_replicates`` bootstrap samples of one task's test clips.

    A sample draws as many groups as there are, with replacement, and of a system with several seeds as many seeds;
    its accuracy is drawn correct clips / drawn clips, averaged over the drawn seeds. The groups drawn depend on
    ``seed``, ``task`` and the number of groups alone: samples of two systems are paired where ``groups_N`` is equal.
    The seeds drawn depend on ``seed`` and S alone: they are the same for all tasks, as a pre-training is.

    Args:
        correct_SN: bool, whether each seed's system is right on each test clip.
        groups_N: str, the clips' groups; "" is a group of its own.
        num_replicates: R.
        seed: of all draws.
        task: name of the task: groups of different tasks are drawn independently.
        weights_N: of the clips in an accuracy; None is all alike.

    Raises:
        ValueError: there is no clip or no seed, or the shapes do not match.
    """
    if correct_SN.ndim != 2 or not correct_SN.size or correct_SN.shape[1] != len(groups_N):
        raise ValueError(
            f"correct_SN has shape {correct_SN.shape} for {len(groups_N)} groups_N of task {task!r}: give a row for "
            "each seed, at least one, and a column for each test clip, at least one"
        )
    ids_N = distinct_groups(groups_N)
    weights_N = np.ones(len(ids_N)) if weights_N is None else weights_N
    sizes_G = np.bincount(ids_N, weights_N)
    correct_GS = np.stack([np.bincount(ids_N, row * weights_N, len(sizes_G)) for row in correct_SN], axis=1)
    sums_GT = np.column_stack([correct_GS, sizes_G])
    rng = randomness.generator(seed, f"bootstrap groups of {task}")
    drawn_RT = np.concatenate([counts @ sums_GT for counts in _group_counts(rng, num_replicates, len(sizes_G))])
    accuracies_RS = drawn_RT[:, :-1] / drawn_RT[:, -1:]
    num_seeds = len(correct_SN)
    seeds_RS = randomness.generator(seed, "bootstrap seeds").integers(num_seeds, size=(num_replicates, num_seeds))
    accuracy = float((correct_GS.sum(axis=0) / sizes_G.sum()).mean())
    of_all_R = accuracies_RS.mean(axis=1)
    of_drawn_R = np.take_along_axis(accuracies_RS, seeds_RS, axis=1).mean(axis=1)
    return Deviations(accuracy, of_all_R - accuracy, of_drawn_R - of_all_R, len(sizes_G), num_seeds)


def expansion(number: int) -> float:
    """How much wider the interval of a mean of G groups is than the plain bootstrap's: √(G / (G - 1)) · t / z.

    The bootstrap's variance divides by G instead of G - 1, and its tails are a normal distribution's instead of
    Student's t: a factor of 2.69 of 3 groups, 1.44 of 6, 1.04 of 50; NaN of one. The same of seeds. Hesterberg, What
    Teachers Should Know About the Bootstrap, 2015, on the expanded percentile interval.
    """
    if number < 2:
        return float("nan")
    upper = _TAILS[1]
    return float(np.sqrt(number / (number - 1)) * stats.t.ppf(upper, number - 1) / stats.norm.ppf(upper))


def p_value(a: Sequence[Deviations], b: Sequence[Deviations]) -> float:
    """Two-sided p of the difference of two systems' mean over the same tasks; NaN where a task has a single group.

    Student's t of the difference over its standard error. The variances of the groups of each task and of the seeds are
    the bootstrap's, times G / (G - 1) and S / (S - 1); degrees of freedom by Welch and Satterthwaite: Satterthwaite, An
    Approximate Distribution of Estimates of Variance Components, 1946. Percentiles alone would call the difference of
    three seeds certain that all point the same way, which one in four do by chance.

    Args:
        a, b: a system each, by task, in the same order and of the same draws.
    """
    num_tasks = len(a)
    if min(of.num_groups for of in a) < 2:
        return float("nan")
    components = [
        (_variance((mine.by_clips - other.by_clips) / num_tasks, mine.num_groups), mine.num_groups - 1)
        for mine, other in zip(a, b, strict=True)
    ]
    by_seeds = [(np.mean([of.by_seeds for of in system], axis=0), system[0].num_seeds) for system in (a, b)]
    (first_R, first), (second_R, second) = by_seeds
    # Of as many seeds the same ones are drawn: one difference. Of different numbers there are two systems' variances.
    differences = [(first_R - second_R, first)] if first == second else by_seeds
    components += [(_variance(of_R, number), number - 1) for of_R, number in differences if number > 1]
    difference = float(np.mean([mine.accuracy - other.accuracy for mine, other in zip(a, b, strict=True)]))
    variance = sum(of for of, _ in components)
    if variance == 0:
        return 1.0 if difference == 0 else 0.0
    freedom = variance**2 / sum(of**2 / number for of, number in components)
    return float(2 * stats.t.sf(abs(difference) / np.sqrt(variance), freedom))


def _variance(deviations_R: np.ndarray, number: int) -> float:
    return float(deviations_R.var() * number / (number - 1))


def interval(value: float, replicates_R: np.ndarray, least: float = 0.0) -> Interval:
    """The value with the 2.5 and 97.5 percentiles of its replicates, which end at ``least`` and 1."""
    low, high = np.clip(np.quantile(replicates_R, _TAILS), least, 1.0)
    return Interval(float(value), float(low), float(high))


def difference(value_a: float, replicates_a_R: np.ndarray, value_b: float, replicates_b_R: np.ndarray) -> Interval:
    """The interval of ``a - b``, within -1 and 1; both have replicates of the same draws, see ``replicates``."""
    return interval(value_a - value_b, replicates_a_R - replicates_b_R, least=-1.0)


def mean_over_tasks(replicates_by_task: Sequence[np.ndarray]) -> np.ndarray:
    """Replicates ``(R,)`` of the unweighted mean of a system's accuracies, from its replicates of every task."""
    return np.mean(np.stack(replicates_by_task), axis=0)


def _group_counts(rng: np.random.Generator, num_replicates: int, num_groups: int) -> Iterator[np.ndarray]:
    """How often each group is drawn in each replicate, some replicates at a time: float64 ``(chunk, G)``.

    Multinomial counts, made from the groups drawn: ``Generator.multinomial`` takes a binomial draw for every group.
    """
    rows = max(1, _DRAWS_PER_CHUNK // num_groups)
    for start in range(0, num_replicates, rows):
        chunk = min(rows, num_replicates - start)
        drawn = rng.integers(num_groups, size=(chunk, num_groups)) + num_groups * np.arange(chunk)[:, None]
        yield np.bincount(drawn.ravel(), minlength=chunk * num_groups).reshape(chunk, num_groups).astype(np.float64)
