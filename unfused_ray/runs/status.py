"""The state of a run: the content of its status.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["running", "finished", "stopped", "collapsed", "diverged", "failed"]


@dataclass(frozen=True)
class Status:
    """The state of a run."""

    state: State
    epoch: int
    step: int
    message: str = ""
    updated: float = 0.0
    """Time of writing, in seconds since 1970."""
    lost_metrics: int = 0
    """Number of this start's metrics that did not reach the tracking server."""

    def ended_as_planned(self, last_epoch: int) -> bool:
        """Return True if the run ended as planned: at its end, or after ``last_epoch`` epochs."""
        return self.state == "finished" or (self.state, self.epoch, self.step) == ("stopped", last_epoch, 0)
