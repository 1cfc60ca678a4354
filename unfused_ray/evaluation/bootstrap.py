"""Intervals of accuracies and of their differences, by a paired bootstrap over groups of clips, crossed with seeds.

Clips of one recording or speaker stand or fall together, so groups are drawn, never single clips. Where a system has
several seeds, as random networks have, its interval covers another network, too. Of a system with one training it is of
test clips alone, and says nothing of another training. Percentile intervals (Efron and Tibshirani, An Introduction to
the Bootstrap, 1993, ch. 13) are too narrow if groups are few, and are widened by :func:`expansion`. Two or three seeds
have too few samples for percentiles: they are weighted with normal numbers instead of drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import BeforeValidator
from scipy import stats

from unfused_ray.audio import randomness

_TAILS = (0.025, 0.975)
_End = Annotated[float, BeforeValidator(lambda end: math.nan if end is None else end)]
"""An end of an interval, which JSON has as null if it is unknown."""
_DRAWS_PER_CHUNK = 2**21  # 16 MB of draws at a time: 10,000 replicates of 3,000 groups at once would be 240 MB


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
    num_groups: int
    """G: groups of the task's test clips."""
    num_seeds: int
    """S: networks of the system."""

    @property
    def accuracies(self) -> np.ndarray:
        """(R,) float64 accuracies of the samples, as wide as few groups and seeds need; NaN for one group.

        Deviations by the groups drawn are widened by the expansion of the number of groups, those by the seeds from
        normal to Student's t: accuracies of two systems with the same seeds stay paired. Hesterberg reads percentiles
        further out instead; three groups have no such percentiles.
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

    A sample draws as many groups as there are, with replacement; its accuracy is the mean score of the drawn clips,
    averaged over the seeds, plus the seeds' deviations from that mean, each times a normal weight over √(S · (S - 1)):
    their sum has the variance of a mean of S seeds, and is linear in them. The groups drawn depend on ``seed``,
    ``task`` and the number of groups alone: samples of two systems are paired where ``groups_N`` is equal. The weights
    depend on ``seed`` and S alone: they are the same for all tasks, as a pre-training is.

    Args:
        scores_SN: float64, 0 to 1, of each seed's network on each test clip; 1 where a classifier is right.
        groups_N: str, the clips' groups; "" is a group of its own.
        num_replicates: R.
        seed: of the draws.
        task: name of the task: groups of different tasks are drawn independently.
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
    sums_GT = np.column_stack([scores_GS, sizes_G])
    rng = randomness.generator(seed, f"bootstrap groups of {task}")
    drawn_RT = np.concatenate([counts @ sums_GT for counts in _group_counts(rng, num_replicates, len(sizes_G))])
    accuracies_RS = drawn_RT[:, :-1] / drawn_RT[:, -1:]
    num_seeds = len(scores_SN)
    weights_RS = randomness.generator(seed, "bootstrap seeds").standard_normal((num_replicates, num_seeds))
    accuracy = float((scores_GS.sum(axis=0) / sizes_G.sum()).mean())
    all_seeds_R = accuracies_RS.mean(axis=1)
    by_seeds_R = ((accuracies_RS - all_seeds_R[:, None]) * weights_RS).sum(axis=1)
    by_seeds_R /= math.sqrt(num_seeds * max(1, num_seeds - 1))
    return Deviations(accuracy, all_seeds_R - accuracy, by_seeds_R, len(sizes_G), num_seeds)


def expansion(number: int) -> float:
    """The width of a mean of G groups' interval over that of the plain bootstrap: √(G / (G - 1)) · t / z.

    The bootstrap's variance divides by G instead of G - 1, and its tails are a normal distribution's instead of
    Student's t: a factor of 2.69 for 3 groups, 1.44 for 6, 1.04 for 50; NaN for one. Hesterberg, What Teachers Should
    Know About the Bootstrap, 2015, on the expanded percentile interval.
    """
    return math.sqrt(number / (number - 1)) * tails(number) if number > 1 else math.nan


def tails(number: int) -> float:
    """95 % tails of Student's t of a mean of several numbers over those of a normal distribution: 6.48 for 2."""
    upper = _TAILS[1]
    return float(stats.t.ppf(upper, number - 1) / stats.norm.ppf(upper))


def p_value(a: Sequence[Deviations], b: Sequence[Deviations]) -> float:
    """Two-sided p of the difference of two systems' mean over the same tasks; NaN where a task has a single group.

    Student's t of the difference over its standard error. The variances are those of the same samples, of groups times
    G / (G - 1); degrees of freedom by Welch and Satterthwaite: Satterthwaite, An Approximate Distribution of Estimates
    of Variance Components, 1946. NaN, too, where systems differ and nothing varies: two clips may do so by chance.

    Args:
        a, b: a system each, by task, in the same order and of the same draws.
    """
    num_tasks = len(a)
    if min(system.num_groups for system in a) < 2:
        return float("nan")
    components = [
        (
            float(((mine.by_clips - other.by_clips) / num_tasks).var() * mine.num_groups / (mine.num_groups - 1)),
            mine.num_groups - 1,
        )
        for mine, other in zip(a, b, strict=True)
    ]
    by_seeds = [(np.mean([task.by_seeds for task in system], axis=0), system[0].num_seeds) for system in (a, b)]
    (first_R, first), (second_R, second) = by_seeds
    # Equally many seeds are weighted alike: one difference. Different numbers of seeds are two systems' variances.
    differences = [(first_R - second_R, first)] if first == second else by_seeds
    components += [(float(of_seeds_R.var()), number - 1) for of_seeds_R, number in differences if number > 1]
    difference = float(np.mean([mine.accuracy - other.accuracy for mine, other in zip(a, b, strict=True)]))
    variance = sum(part for part, _ in components)
    if variance == 0:
        return 1.0 if difference == 0 else math.nan
    freedom = variance**2 / sum(part**2 / number for part, number in components)
    return float(2 * stats.t.sf(abs(difference) / np.sqrt(variance), freedom))


def interval(value: float, replicates_R: np.ndarray, least: float = 0.0) -> Interval:
    """The value with the 2.5 and 97.5 percentiles of its replicates, which end at ``least`` and 1."""
    low, high = np.clip(np.quantile(replicates_R, _TAILS), least, 1.0)
    return Interval(float(value), float(low), float(high))


def difference(value_a: float, replicates_a_R: np.ndarray, value_b: float, replicates_b_R: np.ndarray) -> Interval:
    """The interval of ``a - b``, within -1 and 1; both have replicates of the same draws."""
    return interval(value_a - value_b, replicates_a_R - replicates_b_R, least=-1.0)


def mean_over_tasks(replicates_by_task: Sequence[np.ndarray]) -> np.ndarray:
    """Replicates ``(R,)`` of the unweighted mean of a system's accuracies, from its replicates of every task."""
    return np.mean(np.stack(replicates_by_task), axis=0)


def _group_counts(rng: np.random.Generator, num_replicates: int, num_groups: int) -> Iterator[np.ndarray]:
    """Counts of each group in each replicate, some replicates at a time: float64 ``(chunk, G)``.

    Multinomial counts, made from the groups drawn: ``Generator.multinomial`` takes a binomial draw for every group.
    """
    rows = max(1, _DRAWS_PER_CHUNK // num_groups)
    for start in range(0, num_replicates, rows):
        chunk = min(rows, num_replicates - start)
        drawn = rng.integers(num_groups, size=(chunk, num_groups)) + num_groups * np.arange(chunk)[:, None]
        yield np.bincount(drawn.ravel(), minlength=chunk * num_groups).reshape(chunk, num_groups).astype(np.float64)
