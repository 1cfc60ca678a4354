"""Search spaces: the settings of a distillation that a sweep varies, with their ranges."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from unfused_ray import storage
from unfused_ray.config import DistillConfig

Space = Mapping[str, BaseDistribution]
"""Optuna's distributions by the dotted name of a field, such as ``method.alpha``."""
Point = Mapping[str, Any]
"""A value for each field of a space."""

LABELS = "labels."
"""Prefix of the fields of pseudo-labels, which are made once for each combination of their values."""


def to_json(space: Space) -> dict[str, Any]:
    """Convert a space to plain values, each distribution in Optuna's JSON form."""
    return {name: json.loads(distribution_to_json(distribution)) for name, distribution in space.items()}


def apply(config: DistillConfig, point: Point) -> DistillConfig:
    """Return the configuration with a point's values; in a field that is a tuple, a single value is its only item.

    Raises:
        ValueError: there is no such field, or its values are impossible.
    """
    try:
        several = {name for name in point if isinstance(config.get(name), tuple)}
        single = {name: (value,) for name, value in point.items() if name in several and not isinstance(value, tuple)}
        return config.replace({**point, **single})
    except ValueError as error:
        raise ValueError(f"space: {json.dumps(dict(point))} cannot work: {error}") from error


def default_point(config: DistillConfig, space: Space) -> dict[str, Any]:
    """Return the configuration's own values, which are the point of the default trial, in the types of the space.

    Raises:
        ValueError: a value is outside the space.
    """
    point: dict[str, Any] = {}
    for name, distribution in space.items():
        value = config.get(name)
        if isinstance(value, tuple) and len(value) == 1 and not _contains(distribution, value):
            value = value[0]
        if not _contains(distribution, value):
            raise ValueError(f"space: distill.{name}={value}, the default trial, lies outside {distribution}")
        # As Optuna draws it: 1.0 is 1 in a space of whole numbers, or the default trial would be tried twice.
        point[name] = distribution.to_external_repr(distribution.to_internal_repr(value))
    return point


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except ValueError:  # a value of another type, or not one of the choices
        return False


def label_points(space: Space) -> list[dict[str, Any]]:
    """Return every combination of values of the fields that decide pseudo-labels; one empty point if there are none.

    Raises:
        ValueError: such a field is not a list of choices.
    """
    names = [name for name in space if name.startswith(LABELS)]
    for name in names:
        if not isinstance(space[name], CategoricalDistribution):
            raise ValueError(f"space: {name} must be a CategoricalDistribution: its pseudo-labels are made beforehand")
    choices = [space[name].choices for name in names]  # type: ignore[attr-defined] # categorical, see above
    return [dict(zip(names, values, strict=True)) for values in product(*choices)]


def num_values(distribution: BaseDistribution) -> float:
    """Return the number of values of a distribution; infinite for real numbers without a step."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    return math.inf if step is None else 1 + round((high - low) / step)


def num_points(space: Space) -> float:
    """Return the number of points of a space."""
    return math.prod(num_values(distribution) for distribution in space.values())


def points(space: Space) -> Iterator[dict[str, Any]]:
    """Yield every point of a finite space."""
    values = [list(_evenly(distribution, int(num_values(distribution)))) for distribution in space.values()]
    yield from (dict(zip(space, point, strict=True)) for point in product(*values))


def grid(space: Space, num_points: int) -> list[dict[str, Any]]:
    """Return all combinations of evenly spaced values, the finest grid of at most ``num_points`` points.

    The coarsest grid has both ends of every range, and may have more than ``num_points`` points.
    """
    ranges = [distribution for distribution in space.values() if not isinstance(distribution, CategoricalDistribution)]
    categories = [len(d.choices) for d in space.values() if isinstance(d, CategoricalDistribution)]
    each = max(2, int((num_points / math.prod(categories)) ** (1 / max(1, len(ranges))) + 1e-9))
    values = [list(_evenly(distribution, each)) for distribution in space.values()]
    return [dict(zip(space, point, strict=True)) for point in product(*values)]


def _evenly(distribution: BaseDistribution, count: int) -> Iterator[Any]:
    if isinstance(distribution, CategoricalDistribution):
        yield from distribution.choices
        return
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    spaced = np.geomspace if distribution.log else np.linspace
    low, high, step = distribution.low, distribution.high, distribution.step
    values = spaced(low, high, count).clip(low, high).tolist()
    if step is not None:  # as Optuna rounds: a value that Optuna has drawn is one of these, bit by bit
        values = [min(low + step * round((value - low) / step), high) for value in values]
    yield from dict.fromkeys(values)


def identity(point: Point) -> str:
    """Return a short name of a point, the same in every sweep."""
    return storage.sha256(json.dumps(dict(point), sort_keys=True).encode())[:10]
