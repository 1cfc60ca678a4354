"""Points, grids and successive halving of a sweep are the same with and without a resume."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from unfused_ray.config import SweepConfig
from unfused_ray.sweeps.halving import Halving
from unfused_ray.sweeps.search import Search, given_points, make_search, num_trials
from unfused_ray.sweeps.space import Space, identity, points
from unfused_ray.sweeps.trial import Record, Rung, State

FINITE: Space = {"a": CategoricalDistribution((3, 4)), "b": IntDistribution(2, 8, step=3)}
ALPHA: Space = {"alpha": FloatDistribution(0.0, 1.0)}
RUNGS = (1, 3, 9)


def record(point: dict[str, Any], accuracies: list[float], state: State = "finished") -> Record:
    return Record(point, state, [Rung(epoch, accuracy, []) for epoch, accuracy in zip(RUNGS, accuracies, strict=False)])


@pytest.mark.parametrize("space", [FINITE, {"alpha": FloatDistribution(0.0, 1.0, step=0.2)}])
@pytest.mark.parametrize("sampler", [TPESampler, RandomSampler])
def test_trials_that_run_at_the_same_time_have_different_points_until_there_are_none(
    sampler: type[BaseSampler], space: Space
) -> None:
    search = Search(space, sampler(seed=0), [], [])
    drawn = [search.suggest(str(i)) for i in range(6)]
    assert {identity(point) for point in drawn} == {identity(point) for point in points(space)}  # type: ignore[arg-type]
    assert search.suggest("6") == Searcher.FINISHED


def test_points_that_are_given_come_first_and_those_that_have_ended_never() -> None:
    first, done = {"a": 3, "b": 8}, {"a": 4, "b": 2}
    search = Search(FINITE, TPESampler(seed=0), [first], [record(done, [0.9])])
    drawn = []
    for i in range(5):
        drawn.append(search.suggest(str(i)))
        search.on_trial_complete(str(i), {"accuracy": 0.1 * i} if i % 2 else None, error=i == 2)
    assert drawn[0] == first
    assert done not in drawn
    assert search.suggest("5") == Searcher.FINISHED


def test_a_search_learns_from_trials_that_ended_before() -> None:
    ended = [record({"alpha": alpha}, [1.0 - abs(alpha - 0.8)]) for alpha in np.linspace(0, 1, 40)]
    search = Search(ALPHA, TPESampler(seed=0), [], ended)
    drawn = [search.suggest(str(i)) for i in range(20)]
    assert np.mean([abs(point["alpha"] - 0.8) < 0.2 for point in drawn if isinstance(point, dict)]) > 0.8


def test_a_resumed_search_begins_with_the_trials_that_have_not_ended() -> None:
    config, default = SweepConfig(search="random"), {"alpha": 0.7}
    records = [record(default, [0.5]), record({"alpha": 0.25}, [0.6], "running"), record({"alpha": 0.5}, [], "failed")]
    search = make_search(config, ALPHA, default, records)
    first = [search.suggest(str(i)) for i in range(3)]
    assert first[:2] == [{"alpha": 0.25}, {"alpha": 0.5}]
    fresh = make_search(config, ALPHA, default, [])
    assert fresh.suggest("0") == default
    assert fresh.suggest("1") != first[2]


@given(most=st.integers(7, 60))
def test_a_grid_has_the_default_point_and_is_never_cut(most: int) -> None:
    space = {**ALPHA, **FINITE}
    config, default = SweepConfig(search="grid", num_trials=most), {"alpha": 0.7, "a": 3, "b": 5}
    if most < 9:  # 2 × 2 × 2 points and the default one
        with pytest.raises(ValueError, match=rf"num_trials={most} is too few for a grid .* has 9 points"):
            given_points(config, space, default)
        return
    found = given_points(config, space, default)
    assert found[0] == default and len(found) == len({identity(point) for point in found}) <= most
    assert num_trials(config, space, default) == len(found)
    search = make_search(config, space, default, [])
    assert [search.suggest(str(i)) for i in range(len(found))] == found


def test_a_sweep_has_no_more_trials_than_its_space_has_points() -> None:
    default = {"a": 3, "b": 5}
    assert num_trials(SweepConfig(num_trials=20), FINITE, default) == 6
    assert num_trials(SweepConfig(num_trials=20), ALPHA, {"alpha": 0.7}) == 20


def run(scheduler: Halving, name: str, point: dict[str, Any], accuracies: list[float]) -> Record:
    """Run a trial under a scheduler as Ray Tune does; return its record."""
    trial: Any = SimpleNamespace(trial_id=name, config=point)
    scheduler.on_trial_add(None, trial)  # type: ignore[arg-type] # not used
    for count, (epoch, accuracy) in enumerate(zip(RUNGS, accuracies, strict=True), 1):
        result = {"epoch": epoch, "accuracy": accuracy}
        if scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP:
            scheduler.on_trial_complete(None, trial, result)  # type: ignore[arg-type]
            return record(point, accuracies[:count], "finished" if epoch == RUNGS[-1] else "stopped early")
    raise AssertionError("it goes on behind its last rung")


accuracies = st.lists(st.floats(0, 1), min_size=3, max_size=3)


@given(trials=st.lists(accuracies, min_size=1, max_size=12), resumed_after=st.integers(0, 12))
def test_trials_are_stopped_by_what_all_have_reached_before_a_resume_too(
    trials: list[list[float]], resumed_after: int
) -> None:
    seen: dict[int, list[float]] = {epoch: [] for epoch in RUNGS[:-1]}
    records: list[Record] = []
    scheduler = Halving(RUNGS, 3, "none", [])
    for number, reached in enumerate(trials):
        if number == resumed_after:
            scheduler = Halving(RUNGS, 3, "none", records)
        records.append(run(scheduler, str(number), {"alpha": number}, reached))
        expected = len(RUNGS)
        for count, epoch in enumerate(seen, 1):
            worse = bool(seen[epoch]) and reached[count - 1] < np.percentile(seen[epoch], 100 * (1 - 1 / 3))
            seen[epoch].append(reached[count - 1])
            if worse:
                expected = count
                break
        assert len(records[-1].rungs) == expected


def test_the_last_rung_of_a_trial_that_goes_on_counts_once() -> None:
    ended = [record({"alpha": i}, [0.5]) for i in range(2)]
    unfinished = record({"alpha": 9}, [0.4], "running")
    again = run(Halving(RUNGS, 3, "none", [*ended, unfinished]), "again", {"alpha": 9}, [0.4, 1.0, 1.0])
    assert (again.state, len(again.rungs)) == ("stopped early", 1)


def test_the_default_trial_is_never_stopped_and_counts_for_the_others() -> None:
    default = {"alpha": 0.7}
    scheduler = Halving(RUNGS, 3, identity(default), [record({"alpha": i}, [0.9, 0.9, 0.9]) for i in range(4)])
    assert run(scheduler, "default", default, [0.1, 0.1, 0.1]).state == "finished"
    assert run(scheduler, "worse", {"alpha": 0.3}, [0.2, 0.2, 0.2]).state == "stopped early"
    alone = Halving(RUNGS, 3, identity(default), [])
    run(alone, "default", default, [0.8, 0.8, 0.8])
    assert run(alone, "worse", {"alpha": 0.3}, [0.2, 0.2, 0.2]).state == "stopped early"
