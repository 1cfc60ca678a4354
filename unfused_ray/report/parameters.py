"""The parameters of a sweep as its trials show them: their scales, and how much each matters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator

from unfused_ray.sweep.trial import Record

MIN_TRIALS = 10
"""So many trials must have reached an epoch to be compared after it, and not after an earlier one that more have."""


@dataclass(frozen=True)
class Parameter:
    """A field that trials have different values of."""

    name: str
    """Dotted, as in the configuration."""
    scale: Literal["linear", "log", "category"]
    categories: Sequence[str]
    """Names of the values of a category, in order."""

    @classmethod
    def of(cls, name: str, values: Sequence[Any], is_log: bool) -> Parameter:
        """Told by its values, of which all but numbers are categories, and by how it was searched."""
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
            return cls(name, "category", sorted({json.dumps(value) for value in values}))
        return cls(name, "log" if is_log else "linear", ())

    @property
    def label(self) -> str:
        """As it stands on an axis."""
        short = self.name.rpartition(".")[2]
        return {"alpha": "α", "beta": "β"}.get(short, short.replace("_", " "))

    def places(self, values: Sequence[Any]) -> np.ndarray:
        """Where values lie on an even axis: logarithms to base 10 where it is logarithmic, numbers of categories."""
        if self.scale == "category":
            return np.array([self.categories.index(json.dumps(value)) for value in values], float)
        numbers = np.array(values, float)
        return np.log10(numbers) if self.scale == "log" else numbers

    def distribution(self, values: Sequence[Any]) -> BaseDistribution:
        """What Optuna takes it for: as wide as its values."""
        if self.scale == "category":
            return CategoricalDistribution(self.categories)
        return FloatDistribution(float(min(values)), float(max(values)), log=self.scale == "log")


@dataclass(frozen=True)
class Scored:
    """Trials that can be compared, because all were scored after the same epoch."""

    epoch: int
    records: Sequence[Record]
    accuracies: np.ndarray
    """(T,) mean validation accuracies after that epoch, as shares of 1."""

    def values(self, parameter: Parameter) -> list[Any]:
        """Of each trial."""
        return [record.point[parameter.name] for record in self.records]


def comparable(records: Sequence[Record]) -> Scored | None:
    """The trials scored after the latest epoch that ``MIN_TRIALS`` have reached, else the epoch that most have.

    Trials that are stopped early have no accuracy after the last epoch, and their last one is of fewer epochs: the two
    must not share a scale. None where nothing was scored.
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
    return Scored(epoch, found, np.array([scores[record.id] for record in found]))


def parameters_of(records: Sequence[Record], space: Mapping[str, Any]) -> list[Parameter]:
    """Every field that the trials vary, on the scale that it was searched on.

    Args:
        records: of the trials.
        space: that was searched, as ``sweep.json`` has it; fields it does not name are linear.
    """
    logarithmic = {name for name, distribution in space.items() if distribution["attributes"].get("log")}
    return [
        Parameter.of(name, [record.point[name] for record in records], name in logarithmic) for name in records[0].point
    ]


def importances(scored: Scored, parameters: Sequence[Parameter]) -> Mapping[str, float]:
    """Share of the accuracies' variance that each parameter explains by itself, the largest first; {} where unknown.

    Functional ANOVA over a random forest (Hutter, Hoos and Leyton-Brown, ICML 2014), as Optuna computes it.
    """
    varied = [parameter for parameter in parameters if len(set(map(json.dumps, scored.values(parameter)))) > 1]
    if len(scored.records) < 3 or np.ptp(scored.accuracies) == 0 or not varied:
        return {}
    distributions = {parameter.name: parameter.distribution(scored.values(parameter)) for parameter in varied}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for record, accuracy in zip(scored.records, scored.accuracies.tolist(), strict=True):
        values = {
            parameter.name: json.dumps(record.point[parameter.name])
            if parameter.scale == "category"
            else float(record.point[parameter.name])
            for parameter in varied
        }
        study.add_trial(optuna.trial.create_trial(params=values, distributions=distributions, value=accuracy))
    found = optuna.importance.get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return dict(sorted(found.items(), key=lambda item: -item[1]))
