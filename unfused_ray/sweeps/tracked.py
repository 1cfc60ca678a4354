"""A sweep in MLflow: one run, with one run per trial under it.

Only the driver writes, from the trials' files. So a trial needs no import of MLflow and no connection, an SQLite file
has one writer however many trials there are, and an unreachable tracking server delays no trial.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from unfused_ray import storage
from unfused_ray.config import SweepConfig, flatten
from unfused_ray.data.shards.format import Manifest
from unfused_ray.runs.provenance import upstream
from unfused_ray.runs.run import Run
from unfused_ray.sweeps.space import Point, apply, identity
from unfused_ray.sweeps.trial import FORMAT_VERSION, METRIC, Record, TrialPlan, trial_uri
from unfused_ray.tracking.mlflow import TAGS, TrackedRun, metric_name, tags
from unfused_ray.tracking.sender import CLOSE_SECONDS, Tracker, said_once
from unfused_ray.tracking.store import experiment_name, tracking_uri

logger = logging.getLogger(__name__)

LOST = "lost_metrics.json"
"""File with the number of metrics of the latest start that did not reach MLflow."""
_WORDS = {"finished": "FINISHED", "stopped early": "FINISHED", "failed": "FAILED"}
"""MLflow's states for those of trials; a trial that was stopped early has done its task."""


class SweepTracking:
    """Sends a sweep and its trials to MLflow.

    Args:
        config: configuration of the sweep.
        plan: plan of its trials.
        sweep_id: the project's id of the sweep.
    """

    def __init__(self, config: SweepConfig, plan: TrialPlan, sweep_id: str) -> None:
        self._plan, self._id = plan, sweep_id
        self._tracking = config.distill.tracking
        teacher = [upstream(config.distill.teacher)] if config.distill.teacher else []
        values = config.model_dump(mode="json")
        self._say = said_once()
        self._sweep = Tracker(
            self._run(
                config.name,
                sweep_id,
                values,
                params=flatten(values),
                tags=tags("sweep", plan.uri, [Manifest.load(task) for task in plan.tasks], teacher),
                system_metrics=True,
            ),
            self._say,
            keeps_first=False,  # a failed trial that is resumed is counted again, perhaps as the new best
        )
        self._sweep.log({}, 0)  # opens the run now, because trials are shown under it
        self._trials: dict[str, Tracker] = {}
        self._ended: list[Tracker] = []
        """Trackers of ended trials, which may still be sending."""

    def begin(self, point: Point) -> None:
        """Begin tracking a trial that starts, resumes, or continues in another process."""
        name, uri = identity(point), trial_uri(self._plan.uri, point)
        if name in self._trials:
            return
        values = apply(self._plan.distill, point).model_dump(mode="json")
        run = self._run(name, f"{self._id}-{name}", values, params=point, tags=tags("trial", uri), parent=self._id)
        self._trials[name] = Tracker(run, self._say)

    def report(self, record: Record) -> None:
        """Send a trial's accuracies at a rung, and its students' metrics of the epochs since the previous rung."""
        *_, before, rung = (None, *record.rungs)
        tracker = self._trials[record.id]
        for score in rung.scores:
            run = Run(storage.join(trial_uri(self._plan.uri, record.point), score.task))
            for figures in run.history()[before.epoch if before else 0 :]:
                named = {metric_name(f"{score.task}/{name}"): value for name, value in figures.items()}
                tracker.log(named, int(figures["epoch"]) + 1)
        accuracies = {metric_name(f"{score.task}/{METRIC}"): score.accuracy for score in rung.scores}
        tracker.log({METRIC: rung.accuracy, **accuracies}, rung.epoch)

    def end(self, record: Record, num_ended: int, best: float) -> None:
        """Send the end of a trial.

        Args:
            record: record of the trial.
            num_ended: number of trials that have ended.
            best: highest accuracy of the trials that ran to their end; infinite if there is none.
        """
        self.begin(record.point)  # its process may never have started
        known = {"state": record.state, "message": record.message, "seconds": f"{record.seconds:.1f}"}
        if record.state == "stopped early":
            known["stopped_after_epochs"] = str(record.rungs[-1].epoch)
        tracker = self._trials.pop(record.id)
        tracker.end(_WORDS[record.state], {TAGS + name: value for name, value in known.items()})
        self._ended.append(tracker)
        if math.isfinite(best):
            self._sweep.log({f"best_{METRIC}": best}, num_ended)

    def close(self, status: str) -> int:
        """End all open runs, and wait for all of them together; return the number of lost metrics."""
        running = [*self._trials.values(), self._sweep]
        for tracker in running:
            tracker.end(status)
        ends = time.monotonic() + CLOSE_SECONDS
        return sum(tracker.wait(max(0.0, ends - time.monotonic())) for tracker in (*self._ended, *running))

    def _run(self, name: str, run_id: str, values: Mapping[str, Any], **fields: Any) -> TrackedRun:
        uri, experiment = tracking_uri(self._tracking), experiment_name(self._tracking)
        return TrackedRun(uri, experiment, name, run_id, values, **fields)


@contextmanager
def tracked(config: SweepConfig, plan: TrialPlan, sweep_id: str) -> Iterator[SweepTracking]:
    """Track a sweep while it runs; at its end, log the number of lost metrics and write it to the sweep's folder.

    Args:
        config: configuration of the sweep.
        plan: plan of its trials.
        sweep_id: the project's id of the sweep.
    """
    tracking, status = SweepTracking(config, plan, sweep_id), "FAILED"
    try:
        yield tracking
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        if lost := tracking.close(status):
            logger.warning("%d metrics did not reach the tracking server; the trials' files have them all", lost)
        storage.write_json(storage.join(plan.uri, LOST), {"lost_metrics": lost}, FORMAT_VERSION)
