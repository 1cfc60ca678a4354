"""The coordinator's actor exports the metrics of training to Prometheus under the run's name."""

from __future__ import annotations

import re
from unittest.mock import MagicMock

import pytest

from unfused_ray.tracking import prometheus
from unfused_ray.tracking.mlflow import TrackedRun
from unfused_ray.tracking.prometheus import Gauges
from unfused_ray.training import coordinator
from unfused_ray.training.coordinator import RunProgress
from unfused_ray.training.runtimes import remote_coordinator
from unfused_ray.training.runtimes.remote_coordinator import CoordinatorActor


class StandIn:
    """Stand-in for Ray's gauges that keeps their values."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.values: dict[tuple[str, ...], float] = {}

    def __call__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> StandIn:
        self.made.append(name)
        gauge = StandIn()
        gauge.values, gauge.made = self.values, [name]
        return gauge

    def set(self, value: float, tags: dict[str, str]) -> None:
        self.values[self.made[0], tags["run"], tags["metric"]] = value


@pytest.fixture
def gauges(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    kept = StandIn()
    monkeypatch.setattr(prometheus, "Gauge", kept)
    return kept


def test_a_metric_is_one_gauge_with_its_newest_value(gauges: StandIn):
    exported = Gauges("first")
    exported.set({"clips_per_second": 10.0, "cluster/head0/empty_clusters": 3.0})
    exported.set({"clips_per_second": 12.0})
    assert gauges.made == ["unfused_ray_clips_per_second", "unfused_ray_cluster_head0_empty_clusters"]
    assert gauges.values == {
        ("unfused_ray_clips_per_second", "first", "clips_per_second"): 12.0,
        ("unfused_ray_cluster_head0_empty_clusters", "first", "cluster/head0/empty_clusters"): 3.0,
    }


def test_metrics_whose_names_prometheus_cannot_tell_apart_keep_their_values(gauges: StandIn):
    Gauges("first").set({"watch/my-task/linear": 0.1, "watch/my_task/linear": 0.2, "watch.my.task.linear": 0.3})
    assert set(gauges.made) == {"unfused_ray_watch_my_task_linear"}
    assert sorted(gauges.values.values()) == [0.1, 0.2, 0.3]


@pytest.mark.usefixtures("ray_session")
@pytest.mark.filterwarnings("error:Invalid metric name")  # Ray only warns, and discards the metric
def test_ray_takes_the_names_that_metrics_have():
    Gauges("vögel 鳥").set(dict.fromkeys(("loss", "epoch/seconds_wait", "cluster/head1/nmi_previous", "é-x"), 1.0))


@pytest.mark.parametrize("is_tracked", [True, False], ids=["a run", "a trial, which its sweep tracks"])
def test_the_coordinators_actor_exports_the_metrics_of_training(
    gauges: StandIn, monkeypatch: pytest.MonkeyPatch, is_tracked: bool
):
    monkeypatch.setattr(remote_coordinator.ray, "get_runtime_context", MagicMock())
    monkeypatch.setattr(coordinator.Tracker, "__init__", lambda self, run, say, step: None)
    monkeypatch.setattr(coordinator.Tracker, "log", lambda self, metrics, step: None)
    run = TrackedRun(uri="", experiment="", name="first", id="1") if is_tracked else None
    actor = CoordinatorActor(run, 0)
    actor.report(RunProgress("embedding every clip", 3, 10, {"share": 0.5}))
    actor.report(RunProgress("training", 4, 10, {"wait_share": 0.25}, damaged_clips=2), {"wait_share": 0.25})
    shown = {re.sub("unfused_ray_", "", name): value for (name, *_), value in gauges.values.items()}
    assert shown == ({"wait_share": 0.25, "step": 4, "damaged_clips": 2} if is_tracked else {})
