"""Search spaces by name: each holds an Optuna distribution per varied field of a distillation."""

from __future__ import annotations

import runpy
from pathlib import Path

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from unfused_ray.sweeps.space import Space

_ALPHA_BETA: Space = {
    "method.alpha": FloatDistribution(0.0, 1.0),
    "method.beta": FloatDistribution(1e-3, 10.0, log=True),
}

SPACES: dict[str, Space] = {
    "alpha-beta": _ALPHA_BETA,
    "alpha-beta-clusters": {**_ALPHA_BETA, "labels.num_clusters": CategoricalDistribution((16, 32, 48, 64, 96))},
    "alpha-beta-rate": {**_ALPHA_BETA, "optimizer.lr": FloatDistribution(1e-4, 2e-3, log=True)},
    "alpha-beta-cut": {**_ALPHA_BETA, "method.cut": CategoricalDistribution(("block3", "fc1"))},
}


def find_space(name: str) -> Space:
    """Return one of ``SPACES`` by name, or, as ``FILE.py:NAME``, a space from a Python file, which is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no such space.
    """
    path, _, variable = name.rpartition(":")
    known = runpy.run_path(str(Path(path).expanduser())) if path else SPACES
    space = known.get(variable)
    if not isinstance(space, dict) or not all(isinstance(each, BaseDistribution) for each in space.values()):
        where = f"not a dictionary of Optuna's distributions in {path}" if path else f"not one of {', '.join(SPACES)}"
        raise ValueError(f"space={name} is {where}; a space of your own is FILE.py:NAME")
    return space
