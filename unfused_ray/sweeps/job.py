"""Drives a sweep: labels once, then trials under Ray Tune.

The state of a sweep is in plain files (``sweep.json``, ``trials/<id>/trial.json`` and the checkpoints of unfinished
trials). Ray Tune's own state is neither kept nor read.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import optuna
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import ConcurrencyLimiter

from unfused_ray import cluster, storage
from unfused_ray.config import SweepConfig
from unfused_ray.lease import Lease
from unfused_ray.machine import memory
from unfused_ray.progress import Progress
from unfused_ray.sweeps import SWEEP
from unfused_ray.sweeps.halving import Halving
from unfused_ray.sweeps.plan import SweepPlan
from unfused_ray.sweeps.search import make_search
from unfused_ray.sweeps.space import apply, identity, label_points
from unfused_ray.sweeps.tracked import SweepTracking, tracked
from unfused_ray.sweeps.trial import (
    FORMAT_VERSION,
    PROCESS_DIED,
    LostTrialError,
    Record,
    State,
    TrialPlan,
    read_record,
    read_records,
    run_trial,
)
from unfused_ray.tracking.store import announce
from unfused_ray.training.driver import launch

logger = logging.getLogger(__name__)

RETRIES = 3
"""Number of times that trials are continued after their process died, as with a spot instance. A trial's own error
would only recur."""


def run(plan: SweepPlan) -> Sequence[Record]:
    """Run the missing trials; return the records of all trials.

    Raises:
        ValueError: no trial fits on the cluster, or its nodes cannot all reach a path; nothing is started.
        KeyboardInterrupt: the sweep was stopped; the same command with ``--resume`` resumes it.
        LostTrialError: the process of the default trial died in every attempt; ``--resume`` resumes the sweep too.
    """
    uri = plan.trials.uri
    with Lease(uri, on_loss=lambda: _end_at_once(uri)):
        missing = plan.num_trials - sum(record.has_ended for record in plan.records)
        if missing > 0:
            # The variables are for the trials' processes, if the cluster is started here.
            with cluster.variables(memory.ENVIRONMENT), cluster.session():
                distill = plan.config.distill
                paths = {"distill.teacher": distill.teacher, "distill.init_from": distill.init_from, "output": uri}
                given = {field: (path,) for field, path in paths.items() if path}
                cluster.refuse_local_paths({"tasks": plan.trials.tasks, **given})
                _run(plan, missing, max_concurrent(plan))
        records = read_records(uri)
        for record in records:
            if record.state == "failed":
                logger.warning("trial %s failed: %s", record.id, record.message)
        if any(record.is_lost and record.id == identity(plan.default) for record in records):
            raise LostTrialError(
                f"the sweep in {uri} is not concluded: the process of the default trial, which the others are compared "
                f"with, has died {RETRIES + 1} times, perhaps with its node or for want of memory. The same command "
                "with --resume resumes it"
            )
    return records


def _run(plan: SweepPlan, missing: int, concurrent: int) -> None:
    """Run ``missing`` trials, ``concurrent`` at a time."""
    trials = plan.trials
    storage.write_json(storage.join(trials.uri, SWEEP), plan.record, FORMAT_VERSION)
    announce(plan.config.distill.tracking, cluster.several_nodes())
    with tracked(plan.config, trials, plan.id) as tracking:
        for task in trials.tasks:
            for point in label_points(plan.space):
                data = {"data": (task,), "output": trials.labels_uri(point, task), "name": f"{trials.name}-labels"}
                launch.label(launch.check(apply(trials.distill, point).replace(data)))
        _tune(plan, missing, concurrent, tracking)
        lost = _lost(trials.uri)
        for _ in range(RETRIES):
            ended = [record for record in read_records(trials.uri) if record.has_ended]
            again = [replace(record, state="running", message="") for record in lost[: plan.num_trials - len(ended)]]
            if not again:
                break
            logger.warning("the processes of %d trials have died, perhaps with a node: they are resumed", len(again))
            for record in again:
                record.write(trials.uri)
            _tune(replace(plan, records=[*ended, *again]), len(again), concurrent, tracking)
            lost = _lost(trials.uri)
        for record in lost:
            tracking.end(record, plan.num_trials, -math.inf)


def _lost(uri: str) -> list[Record]:
    """Return the trials whose process has died."""
    return [record for record in read_records(uri) if record.is_lost]


def _tune(plan: SweepPlan, missing: int, concurrent: int, tracking: SweepTracking) -> None:
    """Run ``missing`` trials under Ray Tune.

    Raises:
        KeyboardInterrupt: not all have ended: Ray Tune returns at a Ctrl-C as if they had.
    """
    config, trials = plan.config, plan.trials
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trainable = tune.with_parameters(_trainable, plan=trials)
    scheduler = FIFOScheduler()
    if config.early_stopping and len(trials.rungs) > 1:
        scheduler = Halving(trials.rungs, config.halving, identity(plan.default), plan.records)
    search = make_search(config, plan.space, plan.default, plan.records)
    done = plan.num_trials - missing
    with (
        # Ray Tune's own state goes to a temporary folder: a sweep resumes from its trials' files.
        tempfile.TemporaryDirectory(prefix="unfused-ray-sweep-") as folder,
        Progress("trials", plan.num_trials, "trials", done=done) as bar,
        # Ray Tune's new output prints tables even if it is set to be silent.
        cluster.variables({"RAY_CHDIR_TO_TRIAL_DIR": "0", "RAY_AIR_NEW_OUTPUT": "0"}),
    ):
        best = max((each.accuracy for each in plan.records if each.state == "finished"), default=-math.inf)
        callback = _Records(trials.uri, bar, tracking, done, best)
        tune.Tuner(
            tune.with_resources(trainable, trial_resources(config)),
            tune_config=tune.TuneConfig(
                search_alg=ConcurrencyLimiter(search, concurrent),
                scheduler=scheduler,
                num_samples=missing,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(storage_path=folder, callbacks=[callback], verbose=0),
        ).fit()
    # Counted, because a trial that was still starting has no record, and one of an earlier start may not be continued.
    if callback.num_ended < plan.num_trials:
        raise KeyboardInterrupt("the sweep was interrupted: the same command with --resume resumes it")


def _trainable(point: dict[str, Any], plan: TrialPlan) -> None:
    run_trial(plan, point, tune.report)


def trial_resources(config: SweepConfig) -> dict[str, float]:
    """Return the resources that a trial's own process reserves; a process whose workers train only waits."""
    if config.workers_per_trial:
        return {"CPU": 0.01}
    # GPUs are requested here because Ray hides none from a process that reserves none: all trials would use a node's
    # first GPU.
    gpus = config.gpus_per_trial if cluster.capacity().get("GPU") else 0.0
    return {"CPU": float(config.cpus_per_trial), "GPU": gpus}


def max_concurrent(plan: SweepPlan) -> int:
    """Return the number of parallel trials with which none holds resources that another waits for.

    Raises:
        ValueError: not even one trial fits on the cluster.
    """
    config, have, own = plan.config, cluster.capacity(), trial_resources(plan.config)
    runtime, workers = plan.trials.distill.runtime, config.workers_per_trial
    cpus, field = own["CPU"], f"cpus_per_trial={config.cpus_per_trial}"
    if workers:
        cpus, field = cpus + workers * runtime.cpus_per_worker + 1, f"workers_per_trial={workers}"
    fitting = math.floor(have.get("CPU", 1.0) / cpus)
    if not fitting:
        raise ValueError(
            f"{field}: a trial needs {cpus:g} CPUs (with workers, one is for Ray Data); the cluster has "
            f"{have.get('CPU', 1.0):g}"
        )
    if gpus := runtime.gpus_per_worker if workers else own["GPU"]:
        fitting = min(fitting, cluster.processes(have.get("GPU", 0.0), gpus) // max(1, workers))
    if not fitting:
        raise ValueError(
            f"{field} × distill.runtime.gpus_per_worker={gpus:g} need {workers * gpus:g} GPUs, the cluster has "
            f"{have.get('GPU', 0.0):g}: lower one of them, or add nodes with GPUs"
        )
    each = runtime.cpus_per_worker if workers else own["CPU"]
    fitting = min(fitting, cluster.room(each, gpus) // max(1, workers))
    if not fitting:
        raise ValueError(
            f"{field}: {max(1, workers)} × {each:g} CPUs and {gpus:g} GPUs, each on one node, do not fit on the "
            f"cluster's nodes ({cluster.nodes_in_words()}): lower one of them, or take larger nodes"
        )
    return min(fitting, config.max_concurrent or fitting)


def _end_at_once(uri: str) -> None:
    """Stop everything: another process has taken the sweep over, and this one must write nothing more."""
    logger.error("another process has taken over the sweep in %s: this one ends here", uri)
    os._exit(1)  # called in the lease's thread, where an exception would end only that thread


class _Records(tune.Callback):
    """Records in the trials' files how they ended, tracks them, and shows the sweep's progress."""

    def __init__(self, uri: str, bar: Progress, tracking: SweepTracking, num_ended: int, best: float) -> None:
        self._uri, self._bar, self._tracking = uri, bar, tracking
        self.num_ended, self._best = num_ended, best
        """Number of trials that have ended, and the best accuracy among those that ran to their end."""

    def __getstate__(self) -> dict[str, Any]:
        """Pickle only the plain values: Ray Tune writes its callbacks to a temporary folder."""
        return {**vars(self), "_bar": None, "_tracking": None}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._tracking.begin(trial.config)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        self._tracking.report(read_record(self._uri, trial.config))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._end(trial, "stopped early", "")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._end(trial, "failed", read_record(self._uri, trial.config).message or PROCESS_DIED)

    def _end(self, trial: Trial, state: State, message: str) -> None:
        record = read_record(self._uri, trial.config)
        if record.state != "finished":
            record = replace(record, state=state, message=message)
            record.write(self._uri)
        self.num_ended += 1
        if record.state == "finished":  # a trial that was stopped early has fewer epochs, and cannot win
            self._best = max(self._best, record.accuracy)
        if not record.is_lost:  # it may be continued
            self._tracking.end(record, self.num_ended, self._best)
        self._bar.update(self.num_ended, **({"best": self._best} if math.isfinite(self._best) else {}))
