"""Intervals of accuracies and of their differences, by a paired bootstrap over groups of clips, crossed with seeds.

Clips of one recording or speaker tend to be right or wrong together, so the bootstrap draws groups, never single clips.
Each group name is drawn as often as a Poisson distribution of mean 1 says (Hanley and MacGibbon, Creating
non-parametric bootstrap samples using Poisson frequencies, 2006). A name is drawn equally often in every task, because
tasks may test the same recordings: a mean over tasks is then as uncertain as the groups that it is made of. If names
are equal by chance, only some precision of the interval is lost: a group's effect on one task is then unrelated to its
namesake's effect on another, so the products of both are 0 on average.

If a system has several seeds, as random networks have, its interval also covers the draw of another network. The
interval of a system with one training covers test clips alone, and says nothing about another training. Percentile
intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13) are too narrow if there are few groups,
and are widened by :func:`expansion`. Two or three seeds give too few samples for percentiles, so seeds are weighted
with normal numbers.
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
"""Quantiles at the ends of a 95 % interval."""
_End = Annotated[float, BeforeValidator(lambda end: math.nan if end is None else end)]
"""One end of an interval; null in JSON if it is unknown."""
_DRAWS_PER_CHUNK = 2**21  # 16 MB of counts at a time; 10,000 replicates of 3,000 groups at once would take 240 MB


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; both ends are NaN if the interval is unknown."""

    value: float
    low: _End
    high: _End

    def percent(self, sign: Literal["", "+"] = "") -> str:
        """Return the value in %; a difference in points, with "+"."""
        return f"{100 * self.value:{sign}.1f}"

    def ends(self, sign: Literal["", "+"] = "") -> str:
        """Return both ends in the same units; '' if they are unknown."""
        if math.isnan(self.low):
            return ""
        return f"{100 * self.low:{sign}.1f}{' … ' if sign else '–'}{100 * self.high:{sign}.1f}"

    def text(self, sign: Literal["", "+"] = "") -> str:
        """Return the value with both ends in brackets, or with a dash if they are unknown."""
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
    """Deviations of bootstrap samples from a system's accuracy on a task, as drawn, before any widening."""

    accuracy: float
    """Accuracy weighted over the test clips, averaged over the seeds."""
    by_clips: np.ndarray
    """(R,) float64 deviations due to the groups drawn, averaged over all seeds."""
    by_seeds: np.ndarray
    """(R,) float64 deviations due to the seeds' weights, in the same groups; 0 for one seed."""
    groups: frozenset[str]
    """Names of the groups of the task's test clips."""
    num_seeds: int
    """S, the number of networks of the system."""

    @property
    def num_groups(self) -> int:
        """G, the number of groups."""
        return len(self.groups)

    @property
    def accuracies(self) -> np.ndarray:
        """(R,) float64 accuracies of the samples, widened for few groups and seeds; NaN for one group.

        Deviations due to groups are widened by the :func:`expansion` of their number, those due to seeds from normal to
        Student's t. The accuracies of two systems with the same seeds stay paired. Hesterberg reads percentiles further
        out instead, but three groups have no such percentiles.
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

    A sample draws each group zero or more times. Its accuracy is the mean score of the clips drawn, averaged over the
    seeds, plus the sum of the seeds' deviations from that mean, each times a normal weight over √(S · (S - 1)). This
    sum is linear in the seeds and has the variance of a mean of S seeds. How often a group is drawn depends on ``seed``
    and its name alone, so samples of two systems are paired, and so are those of two tasks with common groups. The
    seeds' weights depend on ``seed`` and S alone: they are the same for all tasks, because one pre-training is used for
    all. A sample that draws none of a task's G groups, which happens once in e^G, leaves the task unchanged.

    Args:
        scores_SN: float64, 0 to 1, score of each seed's network on each test clip; 1 where a classifier is right.
        groups_N: str, the clips' groups; "" is a group of its own, which no other task has.
        num_replicates: R.
        seed: seed of the draws.
        task: name of the task; it keeps clips without a group distinct from those of other tasks.
        weights_N: weights of the clips in an accuracy; None weights all equally.

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
    # Residuals, not scores: if a system is always right, every sample is exactly 1.
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
    """Return the factor by which a sample interval is widened to that of a mean of G groups.

    The samples' variance is smaller than that of a mean of G groups, and their tails are those of a normal distribution
    instead of Student's t. The factor is 2.42 for 3 groups, 1.29 for 6, 1.03 for 50, and NaN for one. Source:
    Hesterberg, What Teachers Should Know About the Bootstrap, 2015, on the expanded percentile interval.
    """
    return _unbiased(number) * tails(number) if number > 1 else math.nan


def tails(number: int) -> float:
    """Return the ratio of the 95 % tails of Student's t, for a mean of ``number`` values, to the normal's: 6.48 for
    2."""
    upper = TAILS[1]
    return float(stats.t.ppf(upper, number - 1) / stats.norm.ppf(upper))


def p_value(a: Sequence[Deviations], b: Sequence[Deviations]) -> float:
    """Return the two-sided p of the difference of two systems' means over the same tasks.

    It is Student's t of the difference over its standard error. Variances come from the same samples, scaled for the
    number of groups as in :func:`expansion`. Degrees of freedom follow Welch and Satterthwaite (Satterthwaite, An
    Approximate Distribution of Estimates of Variance Components, 1946). Tasks with a common group count as one
    component; its estimate is taken to be as uncertain as if the errors of all its parts coincided. p is NaN if a task
    has a single group. It is also NaN if the systems differ although nothing varies, which two clips may do by chance.

    Args:
        a, b: deviations of one system each, by task, in the same order and from the same samples.
    """
    if min(system.num_groups for system in a) < 2:
        return float("nan")
    differences_TR = np.stack(
        [
            (mine.by_clips - other.by_clips) * _unbiased(mine.num_groups) / len(a)
            for mine, other in zip(a, b, strict=True)
        ]
    )
    # Each task's part in the variance of the mean, including its covariances with the other tasks.
    parts_T = np.cov(np.vstack([differences_TR, differences_TR.sum(axis=0)]), ddof=0)[-1, :-1]
    errors_T = np.abs(parts_T) / np.sqrt([task.num_groups - 1 for task in a])
    linked_TT = np.array([[not task.groups.isdisjoint(other.groups) for other in a] for task in a])
    variance, uncertainty = float(parts_T.sum()), float(errors_T @ linked_TT @ errors_T)
    by_seeds = [(np.mean([task.by_seeds for task in system], axis=0), system[0].num_seeds) for system in (a, b)]
    (first_R, first), (second_R, second) = by_seeds
    # Equal numbers of seeds are weighted alike, so their difference has one variance; different numbers have two.
    for of_seeds_R, number in [(first_R - second_R, first)] if first == second else by_seeds:
        if number > 1:
            variance += float(of_seeds_R.var())
            uncertainty += float(of_seeds_R.var()) ** 2 / (number - 1)
    difference = float(np.mean([mine.accuracy - other.accuracy for mine, other in zip(a, b, strict=True)]))
    if variance <= 0:
        return 1.0 if difference == 0 else math.nan
    return float(2 * stats.t.sf(abs(difference) / np.sqrt(variance), variance**2 / uncertainty))


def interval(value: float, replicates_R: np.ndarray, least: float = 0.0) -> Interval:
    """Return the value with the 2.5 and 97.5 percentiles of its replicates, clipped to ``least`` and 1."""
    low, high = np.clip(np.quantile(replicates_R, TAILS), least, 1.0)
    return Interval(float(value), float(low), float(high))


def difference(value_a: float, replicates_a_R: np.ndarray, value_b: float, replicates_b_R: np.ndarray) -> Interval:
    """Return the interval of ``a - b``, within -1 and 1; the replicates of both come from the same draws."""
    return interval(value_a - value_b, replicates_a_R - replicates_b_R, least=-1.0)


def mean_over_tasks(
    replicates_by_task: Sequence[np.ndarray], weights_T: Sequence[float] | np.ndarray | None = None
) -> np.ndarray:
    """Return replicates ``(R,)`` of a system's mean accuracy from those of every task; weights None are all 1."""
    return np.average(np.stack(replicates_by_task), axis=0, weights=weights_T)


def _unbiased(number: int) -> float:
    """Return the ratio of the standard deviation of a mean of G groups, G > 1, to that of the samples' means.

    A sample of n draws has 1/n of the variance of the G groups, which is (G - 1)/G of the variance of the population.
    """
    draws = np.arange(1, number + 40 + 12 * math.isqrt(number))
    return 1 / math.sqrt((number - 1) * float((stats.poisson.pmf(draws, number) / draws).sum()))


def _names(groups_N: np.ndarray, ids_N: np.ndarray, task: str) -> list[str]:
    """Return the names of the distinct groups, by number; a clip without a group is named by its task and place."""
    named_N = [group or f"clip {clip} of {task}" for clip, group in enumerate(groups_N.tolist())]
    return [named_N[clip] for clip in np.unique(ids_N, return_index=True)[1].tolist()]


def _counts(names: Sequence[str], num_replicates: int, seed: int) -> np.ndarray:
    """Draw how often groups occur in each replicate, the same wherever a name is used: (G, R) float64."""
    return np.stack(
        [randomness.generator(seed, f"bootstrap group {name}").poisson(1.0, num_replicates) for name in names]
    ).astype(np.float64)
