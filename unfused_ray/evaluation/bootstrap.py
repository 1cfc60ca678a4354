"""Intervals of accuracies and of their differences, by a paired bootstrap over groups of clips with seeds nested.

METHOD section 6: clips of one recording or speaker stand or fall together, so groups are drawn, never single clips. Of
a system with several seeds, as random networks have, the seeds are drawn too: its interval covers another network. A
trained system is one training: its interval is of test clips alone, and says nothing of another pre-training.
Percentile intervals: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13; they are too narrow where
groups are few, see :func:`expansion`.
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


def replicates(
    correct_SN: np.ndarray,
    groups_N: np.ndarray,
    num_replicates: int,
    seed: int,
    task: str,
    weights_N: np.ndarray | None = None,
) -> np.ndarray:
    """Accuracies of ``num_replicates`` bootstrap samples of one task's test clips: ``(R,)`` float64.

    A replicate draws as many groups as there are, with replacement, and of a system with several seeds as many seeds;
    its accuracy is drawn correct clips / drawn clips, averaged over the drawn seeds. The groups drawn depend on
    ``seed``, ``task`` and the number of groups alone: replicates of two systems are paired where ``groups_N`` is equal.
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
    return np.take_along_axis(accuracies_RS, seeds_RS, axis=1).mean(axis=1)


def expansion(num_groups: int) -> float:
    """How much wider the interval of a mean of G groups is than the plain bootstrap's: √(G / (G - 1)) · t / z.

    The bootstrap's variance divides by G instead of G - 1, and its tails are a normal distribution's instead of
    Student's t: a factor of 2.69 of 3 groups, 1.44 of 6, 1.04 of 50; NaN of one. Hesterberg, What Teachers Should Know
    About the Bootstrap, 2015, on the expanded percentile interval.
    """
    if num_groups < 2:
        return float("nan")
    upper = _TAILS[1]
    return float(np.sqrt(num_groups / (num_groups - 1)) * stats.t.ppf(upper, num_groups - 1) / stats.norm.ppf(upper))


def expanded(value: float, replicates_R: np.ndarray, num_groups: int) -> np.ndarray:
    """Replicates with their deviations from the value made as wide as few groups need: ``(R,)`` float64, NaN of one.

    Hesterberg reads percentiles further out instead; of three groups there are no such percentiles. Widened replicates
    of one task stay paired: the difference of two rows is widened by the same factor.

    Args:
        value: that the replicates are of.
        replicates_R: of a row on a task, see :func:`replicates`.
        num_groups: of the task's test clips, 1 or more.
    """
    return value + expansion(num_groups) * (replicates_R - value)


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
