"""A sweep in MLflow, without Ray: how its trials end there, also over a resume, and the count of lost metrics."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun

from unfused_ray import storage
from unfused_ray.config import DistillConfig, SweepConfig, TrackingConfig
from unfused_ray.evaluation.protocol import load_protocol
from unfused_ray.runs.run import Run
from unfused_ray.sweeps import tracked as tracked_module
from unfused_ray.sweeps.score import Score
from unfused_ray.sweeps.tracked import LOST, SweepTracking, tracked
from unfused_ray.sweeps.trial import Record, Rung, TrialPlan, trial_uri
from unfused_ray.tracking import sender as tracker
from unfused_ray.tracking.mlflow import kept_id

EXPERIMENT = "tracked sweeps"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker, "FLUSH_SECONDS", 0.1)


def sweep_of(folder: Path, uri: str) -> tuple[SweepConfig, TrialPlan]:
    distill = DistillConfig(tracking=TrackingConfig(uri=uri, experiment=EXPERIMENT))
    protocol = load_protocol("").config
    plan = TrialPlan(str(folder), "sweep", distill, (), (1, 3, 9), protocol, "headline", by_folds=True)
    return SweepConfig(distill=distill), plan


def reach(tracking: SweepTracking, plan: TrialPlan, alpha: float, epochs: tuple[int, ...]) -> Record:
    """Let a trial begin and reach rungs; the student's loss is the epoch's number. Return the record."""
    record = Record({"method.alpha": alpha})
    tracking.begin(record.point)
    student = Run(storage.join(trial_uri(plan.uri, record.point), "task"))
    for epoch in epochs:
        student.write_history([{"epoch": i, "loss": float(i)} for i in range(epoch)])
        rung = Rung(epoch, alpha * epoch, [Score("task", alpha * epoch, [], [])])
        record = replace(record, rungs=[*record.rungs, rung])
        tracking.report(record)
    return record


def trials(uri: str) -> dict[str, MlflowRun]:
    """Return MLflow's runs of trials, by alpha."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], "tags.`unfused_ray.stage` = 'trial'")
    assert len({run.data.params["method.alpha"] for run in found}) == len(found)
    return {run.data.params["method.alpha"]: run for run in found}


def test_a_trial_that_was_stopped_early_is_finished_and_says_where(tmp_path: Path, tracking_uri: str) -> None:
    config, plan = sweep_of(tmp_path, tracking_uri)
    with pytest.raises(KeyboardInterrupt), tracked(config, plan, "sweep 1") as tracking:
        whole = reach(tracking, plan, 0.1, (1, 3, 9))
        tracking.end(replace(whole, state="finished"), 1, 0.9)
        worse = reach(tracking, plan, 0.05, (1, 3))
        tracking.end(replace(worse, state="stopped early"), 2, 0.9)
        tracking.end(Record({"method.alpha": 0.3}, "failed", message="out of memory"), 3, 0.9)  # it never began
        reach(tracking, plan, 0.04, (1,))
        raise KeyboardInterrupt
    found = trials(tracking_uri)
    assert {name: run.info.status for name, run in found.items()} == {
        "0.1": "FINISHED",
        "0.05": "FINISHED",
        "0.3": "FAILED",
        "0.04": "KILLED",
    }
    assert found["0.05"].data.tags["unfused_ray.state"] == "stopped early"
    assert found["0.05"].data.tags["unfused_ray.stopped_after_epochs"] == "3"
    assert "unfused_ray.stopped_after_epochs" not in found["0.1"].data.tags
    assert found["0.3"].data.tags["unfused_ray.message"] == "out of memory"
    client = MlflowClient(tracking_uri=tracking_uri)
    losses = client.get_metric_history(found["0.1"].info.run_id, "task/loss")
    assert sorted((each.step, each.value) for each in losses) == [(i + 1, float(i)) for i in range(9)]
    accuracies = client.get_metric_history(found["0.1"].info.run_id, "accuracy")
    assert sorted(each.step for each in accuracies) == [1, 3, 9]

    with tracked(config, plan, "sweep 1") as tracking:
        resumed = reach(tracking, plan, 0.04, (1, 3, 9))
        tracking.end(replace(resumed, state="finished"), 4, 0.9)
    assert trials(tracking_uri)["0.04"].info.run_id == found["0.04"].info.run_id
    assert trials(tracking_uri)["0.04"].info.status == "FINISHED"
    (sweep,) = client.search_runs([found["0.1"].info.experiment_id], "tags.`unfused_ray.stage` = 'sweep'")
    assert sweep.info.status == "FINISHED"
    assert {run.data.tags["mlflow.parentRunId"] for run in trials(tracking_uri).values()} == {sweep.info.run_id}


def test_what_of_a_sweep_reaches_nobody_is_counted_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracked_module, "CLOSE_SECONDS", 0.1)
    config, plan = sweep_of(tmp_path, "http://127.0.0.1:9")  # no server listens
    with caplog.at_level(logging.WARNING), tracked(config, plan, "sweep 2") as tracking:
        tracking.end(replace(reach(tracking, plan, 0.1, (1,)), state="stopped early"), 1, 0.1)
    lost = json.loads((tmp_path / LOST).read_text())["lost_metrics"]
    assert lost >= 5  # loss, epoch, two accuracies and the best one
    assert f"{lost} metrics did not reach the tracking server" in caplog.text
    assert kept_id(str(tmp_path))  # an evaluation's id in the folder is another file


def test_a_trial_that_goes_on_in_another_process_is_sent_by_the_same_tracker(tmp_path: Path, tracking_uri: str) -> None:
    config, plan = sweep_of(tmp_path, tracking_uri)
    with tracked(config, plan, "sweep 3") as tracking:
        record = reach(tracking, plan, 0.6, (1,))
        tracker = tracking._trials[record.id]
        tracking.begin(record.point)
        assert tracking._trials[record.id] is tracker
        tracking.end(replace(record, state="finished"), 1, 0.6)
    assert trials(tracking_uri)["0.6"].info.status == "FINISHED"
