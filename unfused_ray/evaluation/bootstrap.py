"""Intervals of accuracies and of their differences, by a paired bootstrap over groups of clips, crossed with seeds.

Clips of one recording or speaker stand or fall together, so groups are drawn, never single clips: each name of a group
as often as a Poisson distribution of mean 1 says (Hanley and MacGibbon, Creating non-parametric bootstrap samples using
Poisson frequencies, 2006). A name is drawn equally often in every task, since tasks may test the same recordings: a
mean over tasks is then as uncertain as the groups that it is made of. Where names are equal by chance, nothing is lost
but some precision of the interval: what a group does to one task has then nothing to do with what its namesake does to
another, and the products of both are 0 on average.

Where a system has several seeds, as random networks have, its interval covers another network, too. Of a system with
one training it is of test clips alone, and says nothing of another training. Percentile intervals (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13) are too narrow if groups are few, and are widened by
:func:`expansion`. Two or three seeds have too few samples for percentiles: they are weighted with normal numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import BeforeValidator
from scipy import stats

from unfused_ray.audio import randomness

TAILS = (0.025, 0.975)
"""Ends of a 95 % interval."""
_End = Annotated[float, BeforeValidator(lambda end: math.nan if end is None else end)]
"""An end of an interval, which JSON has as null if it is unknown."""
_DRAWS_PER_CHUNK = 2**21  # 16 MB of counts at a time: 10,000 replicates of 3,000 groups at once would be 240 MB


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; both ends are NaN if the interval is unknown."""

    value: float
    low: _End
    high: _End

    def percent(self, sign: Literal["", "+"] = "") -> str:
        """The value in %; a difference in points, with "+"."""
        return f"{100 * self.value:{sign}.1f}"

    def ends(self, sign: Literal["", "+"] = "") -> str:
        """Both ends likewise; '' if they are unknown."""
        if math.isnan(self.low):
            return ""
        return f"{100 * self.low:{sign}.1f}{' … ' if sign else '–'}{100 * self.high:{sign}.1f}"

    def text(self, sign: Literal["", "+"] = "") -> str:
        """The value with both ends, or a dash for them, in brackets."""
        return f"{self.percent(sign)} ({self.ends(sign) or '–'})"


def distinct_groups(groups_N: np.ndarray) -> np.ndarray:
    """Number the distinct groups from 0: ``(N,)`` int64 group of each clip; a clip without a group ("") is its own."""
    names, ids_N = np.unique(groups_N, return_inverse=True)
    ids_N = ids_N.astype(np.int64)
    alone = groups_N == ""
    ids_N[alone] = len(names) + np.arange(alone.sum())
    return np.unique(ids_N, return_inverse=True)[1].astype(np.int64)


@dataclass(frozen=True)
class Deviations:
    """Deviations of bootstrap samples from the accuracy of a system on a task, as drawn: nothing is widened."""

    accuracy: float
    """Weighted over the test clips, the mean over the seeds."""
    by_clips: np.ndarray
    """(R,) float64: by the groups drawn, the mean over all seeds."""
    by_seeds: np.ndarray
    """(R,) float64: by the seeds' weights, in the same groups; 0 for one seed."""
    groups: frozenset[str]
    """Names of the groups of the task's test clips."""
    num_seeds: int
    """S: networks of the system."""

    @property
    def num_groups(self) -> int:
        """G."""
        return len(self.groups)

    @property
    def accuracies(self) -> np.ndarray:
        """(R,) float64 accuracies of the samples, as wide as few groups and seeds need; NaN for one group.

        Deviations by the groups are widened by the expansion of their number, those by the seeds from normal to
        Student's t: accuracies of two systems with the same seeds stay paired. Hesterberg reads percentiles further
        out instead; three groups have no such percentiles.
        """
        widened_R = expansion(self.num_groups) * self.by_clips
        if self.num_seeds > 1:
            widened_R = widened_R + tails(self.num_seeds) * self.by_seeds
        return self.accuracy + widened_R


def deviations(
    scores_SN: np.ndarray,
    groups_N: np.ndarray,
    num_replicates: int,
    seed: int,
    task: str,
    weights_N: np.ndarray | None = None,
) -> Deviations:
    """Draw ``num_replicates`` bootstrap samples of one task's test clips.

    A sample draws each group some times, or not; its accuracy is the mean score of the clips drawn, averaged over the
    seeds, plus the seeds' deviations from that mean, each times a normal weight over √(S · (S - 1)): their sum has the
    variance of a mean of S seeds, and is linear in them. How often a group is drawn depends on ``seed`` and its name
    alone: samples of two systems are paired, and so are those of two tasks that have groups in common. The seeds'
    weights depend on ``seed`` and S alone: they are the same for all tasks, as a pre-training is. A sample that draws
    none of a task's G groups, one in e^G, is the task as it is.

    Args:
        scores_SN: float64, 0 to 1, of each seed's network on each test clip; 1 where a classifier is right.
        groups_N: str, the clips' groups; "" is a group of its own, which no other task has.
        num_replicates: R.
        seed: of the draws.
        task: name of the task, by which clips without a group are told from those of other tasks.
        weights_N: of the clips in an accuracy; None is all alike.

    Raises:
        ValueError: there is no clip or no seed, or the shapes do not match.
    """
    if scores_SN.ndim != 2 or not scores_SN.size or scores_SN.shape[1] != len(groups_N):
        raise ValueError(
            f"scores_SN has shape {scores_SN.shape} for {len(groups_N)} groups_N of task {task!r}: give a row for "
            "each seed, at least one, and a column for each test clip, at least one"
        )
    ids_N = distinct_groups(groups_N)
    weights_N = np.ones(len(ids_N)) if weights_N is None else weights_N
    sizes_G = np.bincount(ids_N, weights_N)
    scores_GS = np.stack([np.bincount(ids_N, row * weights_N, len(sizes_G)) for row in scores_SN], axis=1)
    accuracies_S = scores_GS.sum(axis=0) / sizes_G.sum()
    # Residuals, not scores: of a system that is always right every sample is exactly 1.
    sums_GT = np.column_stack([scores_GS - sizes_G[:, None] * accuracies_S, sizes_G])
    names = _names(groups_N, ids_N, task)
    weighted_RT = np.zeros((num_replicates, sums_GT.shape[1]))
    rows = max(1, _DRAWS_PER_CHUNK // num_replicates)
    for first in range(0, len(names), rows):
        chunk = slice(first, first + rows)
        weighted_RT += _counts(names[chunk], num_replicates, seed).T @ sums_GT[chunk]
    sizes_R1 = weighted_RT[:, -1:]
    accuracies_RS = accuracies_S + weighted_RT[:, :-1] / np.where(sizes_R1 > 0, sizes_R1, 1.0)
    num_seeds = len(scores_SN)
    weights_RS = randomness.generator(seed, "bootstrap seeds").standard_normal((num_replicates, num_seeds))
    accuracy = float(accuracies_S.mean())
    all_seeds_R = accuracies_RS.mean(axis=1)
    by_seeds_R = ((accuracies_RS - all_seeds_R[:, None]) * weights_RS).sum(axis=1)
    by_seeds_R /= math.sqrt(num_seeds * max(1, num_seeds - 1))
    return Deviations(accuracy, all_seeds_R - accuracy, by_seeds_R, frozenset(names), num_seeds)


def expansion(number: int) -> float:
    """The width of a mean of G groups' interval over that of the samples.

    The samples' variance is not that of a mean of G groups, and their tails are a normal distribution's instead of
    Student's t: a factor of 2.42 for 3 groups, 1.29 for 6, 1.03 for 50; NaN for one. Hesterberg, What Teachers Should
    Know About the Bootstrap, 2015, on the expanded percentile interval.
    """
    return _unbiased(number) * tails(number) if number > 1 else math.nan


def tails(number: int) -> float:
    """95 % tails of Student's t of a mean of several numbers over those of a normal distribution: 6.48 for 2."""
    upper = TAILS[1]
    return float(stats.t.ppf(upper, number - 1) / stats.norm.ppf(upper))


def p_value(a: Sequence[Deviations], b: Sequence[Deviations]) -> float:
    """Two-sided p of the difference of two systems' mean over the same tasks; NaN where a task has a single group.

    Student's t of the difference over its standard error. The variances are those of the same samples, of groups as
    for :func:`expansion`; degrees of freedom by Welch and Satterthwaite: Satterthwaite, An Approximate Distribution of
    Estimates of Variance Components, 1946. Tasks with a group in common count as one component, whose estimate is as
    uncertain as if all of their parts were wrong together. NaN, too, where systems differ and nothing varies: two clips
    may do so by chance.

    Args:
        a, b: a system each, by task, in the same order and of the same samples.
    """
    if min(system.num_groups for system in a) < 2:
        return float("nan")
    differences_TR = np.stack(
        [
            (mine.by_clips - other.by_clips) * _unbiased(mine.num_groups) / len(a)
            for mine, other in zip(a, b, strict=True)
        ]
    )
    # Of each task, its part in the variance of the mean: covariances with the other tasks are in it.
    parts_T = np.cov(np.vstack([differences_TR, differences_TR.sum(axis=0)]), ddof=0)[-1, :-1]
    errors_T = np.abs(parts_T) / np.sqrt([task.num_groups - 1 for task in a])
    linked_TT = np.array([[not task.groups.isdisjoint(other.groups) for other in a] for task in a])
    variance, uncertainty = float(parts_T.sum()), float(errors_T @ linked_TT @ errors_T)
    by_seeds = [(np.mean([task.by_seeds for task in system], axis=0), system[0].num_seeds) for system in (a, b)]
    (first_R, first), (second_R, second) = by_seeds
    # Equally many seeds are weighted alike: one difference. Different numbers of seeds are two systems' variances.
    for of_seeds_R, number in [(first_R - second_R, first)] if first == second else by_seeds:
        if number > 1:
            variance += float(of_seeds_R.var())
            uncertainty += float(of_seeds_R.var()) ** 2 / (number - 1)
    difference = float(np.mean([mine.accuracy - other.accuracy for mine, other in zip(a, b, strict=True)]))
    if variance <= 0:
        return 1.0 if difference == 0 else math.nan
    return float(2 * stats.t.sf(abs(difference) / np.sqrt(variance), variance**2 / uncertainty))


def interval(value: float, replicates_R: np.ndarray, least: float = 0.0) -> Interval:
    """The value with the 2.5 and 97.5 percentiles of its replicates, which end at ``least`` and 1."""
    low, high = np.clip(np.quantile(replicates_R, TAILS), least, 1.0)
    return Interval(float(value), float(low), float(high))


def difference(value_a: float, replicates_a_R: np.ndarray, value_b: float, replicates_b_R: np.ndarray) -> Interval:
    """The interval of ``a - b``, within -1 and 1; both have replicates of the same draws."""
    return interval(value_a - value_b, replicates_a_R - replicates_b_R, least=-1.0)


def mean_over_tasks(
    replicates_by_task: Sequence[np.ndarray], weights_T: Sequence[float] | np.ndarray | None = None
) -> np.ndarray:
    """Replicates ``(R,)`` of the mean of a system's accuracies, from those of every task; weights None are all 1."""
    return np.average(np.stack(replicates_by_task), axis=0, weights=weights_T)


def _unbiased(number: int) -> float:
    """The standard deviation of a mean of G groups, G > 1, over that of the samples' means.

    A sample of n draws has 1/n of the variance of the G groups, which is (G - 1)/G of that of all groups there are.
    """
    draws = np.arange(1, number + 40 + 12 * math.isqrt(number))
    return 1 / math.sqrt((number - 1) * float((stats.poisson.pmf(draws, number) / draws).sum()))


def _names(groups_N: np.ndarray, ids_N: np.ndarray, task: str) -> list[str]:
    """Names of the distinct groups, by number; a clip without a group is named by its task and place."""
    named_N = [group or f"clip {clip} of {task}" for clip, group in enumerate(groups_N.tolist())]
    return [named_N[clip] for clip in np.unique(ids_N, return_index=True)[1].tolist()]


def _counts(names: Sequence[str], num_replicates: int, seed: int) -> np.ndarray:
    """How often groups are drawn in each replicate, the same wherever a name occurs: (G, R) float64."""
    return np.stack(
        [randomness.generator(seed, f"bootstrap group {name}").poisson(1.0, num_replicates) for name in names]
    ).astype(np.float64)
