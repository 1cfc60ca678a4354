"""Stops the worse trials early: asynchronous successive halving (ASHA, arXiv 1810.05934)."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler

from unfused_ray.sweeps.space import identity
from unfused_ray.sweeps.trial import EPOCH, METRIC, Record


class Halving(AsyncHyperBandScheduler):
    """Ray Tune's ASHA, which remembers the trials of earlier starts and never stops the default one.

    All other trials are compared with the default trial on the same clips, which would be impossible if it were
    stopped.

    Args:
        rungs: epochs at which trials are compared; the last is their end.
        factor: one trial in this many continues from a rung.
        default: id of the default trial.
        records: records of the trials that have begun before.
    """

    def __init__(self, rungs: Sequence[int], factor: int, default: str, records: Sequence[Record]) -> None:
        super().__init__(EPOCH, METRIC, "max", max_t=rungs[-1], grace_period=rungs[0], reduction_factor=factor)
        self._last, self._default = rungs[-1], default
        for record in records:
            trial: Any = SimpleNamespace(trial_id=record.id)
            self.on_trial_add(None, trial)
            for rung in record.rungs if record.has_ended else record.rungs[:-1]:  # its last rung is reported again
                super().on_trial_result(None, trial, {EPOCH: rung.epoch, METRIC: rung.accuracy})
            self.on_trial_remove(None, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide whether a trial continues after a rung; called by Ray Tune."""
        action: str = super().on_trial_result(tune_controller, trial, result)
        spared = identity(trial.config) == self._default and result[EPOCH] < self._last
        return self.CONTINUE if spared else action
