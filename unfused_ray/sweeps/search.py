"""Chooses the points that a sweep tries: the given ones, then points drawn by Optuna, none twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState
from ray.tune.search import Searcher

from unfused_ray.config import SweepConfig
from unfused_ray.sweeps.space import Point, Space, grid, identity, num_points, points
from unfused_ray.sweeps.trial import METRIC, Record

_REDRAWS = 20
"""Number of draws of points that are taken already, before the first free point is used."""


class Search(Searcher):
    """Optuna for Ray Tune, whose own Optuna wrapper gives equal points to trials that run at the same time.

    Args:
        space: the search space.
        sampler: draws the points.
        first: points to begin with.
        ended: trials that have ended before, from which the sampler learns.
    """

    def __init__(self, space: Space, sampler: BaseSampler, first: Sequence[Point], ended: Sequence[Record]) -> None:
        super().__init__(metric=METRIC, mode="max")
        self._space = dict(space)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._trials: dict[str, optuna.Trial] = {}
        self._taken = {record.id for record in ended}
        for record in ended:
            self._study.add_trial(
                optuna.create_trial(params=dict(record.point), distributions=self._space, value=record.accuracy)
            )
        for point in first:
            self._study.enqueue_trial(dict(point))

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Return the point of a new trial, or ``Searcher.FINISHED`` if no point is left."""
        if len(self._taken) >= num_points(self._space):
            return Searcher.FINISHED
        trial = self._study.ask(self._space)
        redraws = 0
        while identity(trial.params) in self._taken:
            self._study.tell(trial, state=TrialState.FAIL)
            redraws += 1
            if redraws == _REDRAWS:
                self._study.enqueue_trial(next(p for p in points(self._space) if identity(p) not in self._taken))
            trial = self._study.ask(self._space)
        self._trials[trial_id] = trial
        self._taken.add(identity(trial.params))
        return trial.params

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Record the outcome of a trial that has ended, been stopped or failed; called by Ray Tune."""
        trial = self._trials.pop(trial_id)
        if error or not result or METRIC not in result:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, result[METRIC])

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: a resumed search gets the trials' files. Called by Ray Tune."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing; never called, because no state is saved."""


def make_search(config: SweepConfig, space: Space, default: Point, records: Sequence[Record]) -> Search:
    """Make the search of a sweep, which knows the ended trials and begins with those that have not ended.

    Args:
        config: configuration of the sweep.
        space: the search space.
        default: point of the default trial.
        records: records of the trials that have begun before.
    """
    known = {record.id for record in records}
    seed = config.seed + len(known)  # a resumed search must not repeat earlier draws
    first: list[Point] = [record.point for record in records if not record.has_ended]
    first += [point for point in given_points(config, space, default) if identity(point) not in known]
    sampler = TPESampler(seed=seed) if config.search == "tpe" else RandomSampler(seed=seed)
    return Search(space, sampler, first, [record for record in records if record.has_ended])


def given_points(config: SweepConfig, space: Space, default: Point) -> list[Point]:
    """Return the points that are tried in any case: the default one, and those of a grid.

    Raises:
        ValueError: the grid has more points than ``num_trials``.
    """
    if config.search != "grid":
        return [default]
    others = [point for point in grid(space, config.num_trials - 1) if point != default]
    if len(others) >= config.num_trials:
        raise ValueError(
            f"num_trials={config.num_trials} is too few for a grid of space={config.space}: the coarsest has "
            f"{len(others) + 1} points, the default one among them. Raise num_trials, or search at random"
        )
    return [default, *others]


def num_trials(config: SweepConfig, space: Space, default: Point) -> int:
    """Return the total number of trials: at most the number of points of the space or the grid."""
    most = len(given_points(config, space, default)) if config.search == "grid" else num_points(space)
    return int(min(config.num_trials, most))
