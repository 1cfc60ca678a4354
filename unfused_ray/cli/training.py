"""Runs a training for ``unfused-ray pretrain`` and ``unfused-ray distill``, and prints its summary."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from unfused_ray.api import TrainingResult
from unfused_ray.cli.terminal import say, say_report, show
from unfused_ray.config import TrainingConfig

logger = logging.getLogger(__name__)


def run_training(config: TrainingConfig, dry_run: bool, train: Callable[..., TrainingResult]) -> int:
    """Train, or measure how long a training would take; return the exit code.

    Args:
        config: settings of the training.
        dry_run: True to measure instead of training.
        train: function of :mod:`unfused_ray.api` that runs the stage.
    """
    if dry_run:
        return _dry_run(config)
    from unfused_ray.runs.start_times import StartTimes, process_started

    trained = train(config, start_times=StartTimes(process_started()))
    from unfused_ray.report.terminal import summary  # here: torch is imported while Ray starts
    from unfused_ray.tracking.store import OFF, tracking_uri

    show(summary(trained.folder))
    if (where := tracking_uri(config.tracking)) != OFF:
        say(f"training curves: {_watch(where)}")
    say_report(trained.folder)
    if trained.status.ended_as_planned(config.last_epoch):
        return 0
    return 128 + signal.SIGTERM if trained.status.state == "stopped" else 1


def _watch(tracking_uri: str) -> str:
    """Return the address of the server that shows the curves, or the command that starts one."""
    from unfused_ray import storage

    if tracking_uri.startswith("http"):
        return storage.masked(tracking_uri)
    mlflow = Path(sys.executable).with_name("mlflow")  # the one of this environment, which need not be activated
    return shlex.join([str(mlflow), "ui", "--backend-store-uri", storage.masked(tracking_uri)])


def _dry_run(config: TrainingConfig) -> int:
    from unfused_ray.training.driver.data import read_data

    data = read_data(config)  # read before Ray and torch, which take seconds to start
    from unfused_ray import cluster
    from unfused_ray.doctor import examine
    from unfused_ray.training.driver import dry_run, launch

    if data.config.runtime.estimate_for:
        from unfused_ray.training.driver import estimate

        say(f"estimate for {estimate.describe(data.config, data.index)}")
    with cluster.session():
        findings = examine.examine(data.config)
        show(examine.table(findings))
        plan = launch.check(data)
        show(launch.describe(plan))
        logger.info("measuring for about ten seconds")
        show(dry_run.describe(plan.config, plan.index))
    return examine.exit_code(findings)
