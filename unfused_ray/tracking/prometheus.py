"""A run's newest metrics for Prometheus, on the metrics port of the node that its coordinator lives on."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ray.util.metrics import Gauge

PREFIX = "unfused_ray_"
"""Beginning of the names, as Ray's own begin with ``ray_``, which Ray puts before these too."""


class Gauges:
    """Gauges of one run, labelled with its name.

    Args:
        run: name of the run.
    """

    def __init__(self, run: str) -> None:
        self._labels = {"run": run}
        self._gauges: dict[str, Gauge] = {}

    def set(self, metrics: Mapping[str, float]) -> None:
        """Replace the values of these metrics, and keep the others'; ``epoch/loss`` is ``unfused_ray_epoch_loss``."""
        for name, value in metrics.items():
            if name not in self._gauges:
                metric = PREFIX + re.sub(r"[^a-zA-Z0-9_]", "_", name)
                self._gauges[name] = Gauge(metric, "Newest value of a metric of a run", tag_keys=tuple(self._labels))
            self._gauges[name].set(value, tags=self._labels)
