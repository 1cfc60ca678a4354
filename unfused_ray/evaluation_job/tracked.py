"""Sends the table of an evaluation to MLflow."""

from __future__ import annotations

import logging
import math

from unfused_ray import storage
from unfused_ray.config import flatten
from unfused_ray.evaluation import cells
from unfused_ray.evaluation.protocol import FILE
from unfused_ray.evaluation.table import MARKDOWN, TABLE, EvaluationTable
from unfused_ray.evaluation_job.job import PICTURE, WATCHED
from unfused_ray.evaluation_job.plan import EvaluationPlan
from unfused_ray.figures import cell, nearest
from unfused_ray.runs.provenance import upstream
from unfused_ray.tracking import store
from unfused_ray.tracking.mlflow import TAGS, TrackedRun, kept_id, log_results, metric_name, tags
from unfused_ray.tracking.sender import Tracker

logger = logging.getLogger(__name__)


def track(plan: EvaluationPlan, table: EvaluationTable, parent: str = "") -> None:
    """Send the table to MLflow: accuracies of all cells, the table's files, and the rows' files in a folder per task.

    Unknown ends of intervals are not sent. A repeated evaluation resumes its MLflow run, which keeps its first
    parameters.

    Args:
        plan: the evaluation.
        table: its result.
        parent: id of the run under which it is shown; '' if there is none.
    """
    output = plan.output
    store.announce(plan.config.tracking)
    tracked = _tracked_run(plan, parent)
    tracker = Tracker(tracked, keeps_first=False)
    for row in table.rows:
        for measure, heading, interval in (
            (m, h, i) for m, of_tasks in row.accuracy.items() for h, i in of_tasks.items()
        ):
            bounds = {"accuracy": interval.value, "low": interval.low, "high": interval.high}
            known = {name: value for name, value in bounds.items() if not math.isnan(value)}
            of_cell = f"{row.name}/{heading}/{measure}"
            tracker.log({metric_name(f"{of_cell}/{name}"): value for name, value in known.items()}, 0)
    if lost := tracker.close():
        logger.warning("%d metrics did not reach the tracking server; %s has them all", lost, output)
    written = [storage.join(output, name) for name in (FILE, MARKDOWN, TABLE, PICTURE, WATCHED)]
    if not log_results(tracked, [file for file in written if storage.exists(file)], {}):
        return
    names = {name for s in plan.systems for name in (cells.file_name(s.name), *cell.files(s.name))}
    names.add(nearest.PICTURE)
    for task in table.tasks:  # the folder may hold rows of other evaluations
        files = [file for file in storage.list_files(storage.join(output, task)) if storage.name(file) in names]
        log_results(tracked, files, {}, folder=task)


def _tracked_run(plan: EvaluationPlan, parent: str) -> TrackedRun:
    config = plan.config
    data = [task.index.manifests[0] for task in plan.tasks]
    return TrackedRun(
        uri=store.tracking_uri(config.tracking),
        experiment=store.experiment_name(config.tracking),
        name=config.name,
        id=kept_id(plan.output),
        config=config.model_dump(mode="json"),
        params=flatten(config.model_dump(mode="json")),
        tags=tags("evaluate", plan.output, data, [upstream(uri) for uri in plan.networks])
        | {f"{TAGS}protocol": plan.protocol.sha256},
        parent=parent,
    )
