"""Exports a run's newest metrics to Prometheus, on the metrics port of the node on which its coordinator lives."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ray.util.metrics import Gauge

PREFIX = "unfused_ray_"
"""Prefix of the metrics' names; Ray puts its own prefix, ``ray_``, before it."""


class Gauges:
    """Gauges of one run, labelled with its name and the metric's.

    Prometheus takes only letters, digits and ``_``, so metrics such as ``watch/my-task`` and ``watch/my_task`` share a
    gauge; the label ``metric`` tells them apart.

    Args:
        run: name of the run.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._gauges: dict[str, Gauge] = {}

    def set(self, metrics: Mapping[str, float]) -> None:
        """Replace the values of these metrics, and keep those of others; ``epoch/loss`` is
        ``unfused_ray_epoch_loss``."""
        for name, value in metrics.items():
            gauge = PREFIX + re.sub(r"[^a-zA-Z0-9_]", "_", name)
            labels = {label: _ascii(text) for label, text in (("run", self._run), ("metric", name))}
            if gauge not in self._gauges:
                self._gauges[gauge] = Gauge(gauge, "Newest value of a metric of a run", tag_keys=tuple(labels))
            self._gauges[gauge].set(value, tags=labels)


def _ascii(text: str) -> str:
    """Return a text in the letters that Ray takes for the values of labels, such as ``v\\xf6gel`` for ``vögel``."""
    return text.encode("ascii", "backslashreplace").decode()
