"""A run's newest figures for Prometheus, on the metrics port of the node its coordinator lives on."""

from __future__ import annotations

import re
from collections.abc import Mapping

import ray
from ray.util.metrics import Gauge

PREFIX = "unfused_ray_"
"""Beginning of the names, as Ray's own begin with ``ray_``, which Ray puts before these too."""


class Exported:
    """Gauges of one run, labelled with its name; without Ray, as in the in-process runtime, nothing is exported.

    Args:
        run: name of the run.
    """

    def __init__(self, run: str) -> None:
        self._labels = {"run": run}
        self._gauges: dict[str, Gauge] = {}

    def set(self, figures: Mapping[str, float]) -> None:
        """Replace the values of these figures, and keep the others'; ``epoch/loss`` is ``unfused_ray_epoch_loss``."""
        if not ray.is_initialized():
            return
        for name, value in figures.items():
            if name not in self._gauges:
                metric = PREFIX + re.sub(r"[^a-zA-Z0-9_]", "_", name)
                self._gauges[name] = Gauge(metric, "Newest value of a figure of a run", tag_keys=tuple(self._labels))
            self._gauges[name].set(value, tags=self._labels)
