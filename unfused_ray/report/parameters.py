"""Computes scales and importance of the parameters of a sweep from its trials."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator

from unfused_ray.figures.sweep import Parameter, ScoredTrials
from unfused_ray.sweeps.trial import Record

MIN_TRIALS = 10
"""Number of trials that must have reached an epoch for trials to be compared after it, rather than after an earlier
epoch that more trials have reached."""


def comparable(records: Sequence[Record]) -> ScoredTrials | None:
    """Return the trials scored after the latest epoch that ``MIN_TRIALS`` have reached, else after that of most trials.

    Trials that were stopped early have no accuracy after the last epoch, and their own last accuracy is after fewer
    epochs: the two must not share a scale. None if nothing was scored.
    """
    reached: dict[int, int] = {}
    for record in records:
        for rung in record.rungs:
            reached[rung.epoch] = reached.get(rung.epoch, 0) + 1
    if not reached:
        return None
    enough = [epoch for epoch, count in reached.items() if count >= MIN_TRIALS]
    epoch = max(enough) if enough else max(reached, key=lambda epoch: (reached[epoch], epoch))
    scores = {record.id: rung.accuracy for record in records for rung in record.rungs if rung.epoch == epoch}
    found = [record for record in records if record.id in scores]
    ids, points = [record.id for record in found], [record.point for record in found]
    return ScoredTrials(epoch, ids, points, np.array([scores[trial] for trial in ids]))


def parameters_of(records: Sequence[Record], space: Mapping[str, Any]) -> list[Parameter]:
    """Return every field that the trials vary, with the scale on which it was searched.

    Args:
        records: records of the trials.
        space: the searched space in the form of ``sweep.json``; fields that it does not name are linear.
    """
    logarithmic = {name for name, distribution in space.items() if distribution["attributes"].get("log")}
    return [
        Parameter.of(name, [record.point[name] for record in records], name in logarithmic) for name in records[0].point
    ]


def importances(scored: ScoredTrials, parameters: Sequence[Parameter]) -> Mapping[str, float]:
    """Return the share of accuracy variance that each parameter explains by itself, the largest first; {} if unknown.

    It is Optuna's functional ANOVA over a random forest (Hutter, Hoos and Leyton-Brown, ICML 2014).
    """
    varied = [parameter for parameter in parameters if len(set(map(json.dumps, scored.values(parameter)))) > 1]
    if len(scored.ids) < 3 or np.ptp(scored.accuracies) == 0 or not varied:
        return {}
    distributions = {parameter.name: _distribution(parameter, scored.values(parameter)) for parameter in varied}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for point, accuracy in zip(scored.points, scored.accuracies.tolist(), strict=True):
        values = {
            each.name: json.dumps(point[each.name]) if each.scale == "category" else float(point[each.name])
            for each in varied
        }
        study.add_trial(optuna.trial.create_trial(params=values, distributions=distributions, value=accuracy))
    found = optuna.importance.get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _distribution(parameter: Parameter, values: Sequence[Any]) -> BaseDistribution:
    """Return the parameter as an Optuna distribution, as wide as its values."""
    if parameter.scale == "category":
        return CategoricalDistribution(parameter.categories)
    return FloatDistribution(float(min(values)), float(max(values)), log=parameter.scale == "log")
