"""Figures for Prometheus: what the coordinator is told is exported under the run's name, and nothing without Ray."""

from __future__ import annotations

import re

import pytest

from unfused_ray.tracking import prometheus as metrics
from unfused_ray.tracking.mlflow import TrackedRun
from unfused_ray.tracking.prometheus import Exported
from unfused_ray.training import coordinator
from unfused_ray.training.coordinator import Coordinator, Progress


class Gauges:
    """Stands in for Ray's gauges, and keeps what they are set to."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.values: dict[tuple[str, str], float] = {}

    def __call__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> Gauges:
        self.made.append(name)
        gauge = Gauges()
        gauge.values, gauge.made = self.values, [name]
        return gauge

    def set(self, value: float, tags: dict[str, str]) -> None:
        self.values[self.made[0], tags["run"]] = value


@pytest.fixture
def gauges(monkeypatch: pytest.MonkeyPatch) -> Gauges:
    kept = Gauges()
    monkeypatch.setattr(metrics, "Gauge", kept)
    return kept


def test_a_figure_is_one_gauge_with_its_newest_value(gauges: Gauges, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metrics.ray, "is_initialized", lambda: True)
    exported = Exported("first")
    exported.set({"clips_per_second": 10.0, "cluster/head0/empty_clusters": 3.0})
    exported.set({"clips_per_second": 12.0})
    assert gauges.made == ["unfused_ray_clips_per_second", "unfused_ray_cluster_head0_empty_clusters"]
    assert gauges.values["unfused_ray_clips_per_second", "first"] == 12.0
    assert gauges.values["unfused_ray_cluster_head0_empty_clusters", "first"] == 3.0


def test_without_ray_nothing_is_exported(gauges: Gauges, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metrics.ray, "is_initialized", lambda: False)
    Exported("first").set({"loss": 1.0})
    assert gauges.made == []


@pytest.mark.usefixtures("ray_session")
def test_ray_takes_the_names_that_figures_have():
    Exported("first").set(dict.fromkeys(("loss", "epoch/seconds_wait", "cluster/head1/nmi_previous", "é-x"), 1.0))


@pytest.mark.parametrize("is_tracked", [True, False], ids=["a run", "a trial, which its sweep tracks"])
def test_the_coordinator_exports_what_it_is_told_while_training(
    gauges: Gauges, monkeypatch: pytest.MonkeyPatch, is_tracked: bool
):
    monkeypatch.setattr(metrics.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(coordinator.Tracker, "__init__", lambda self, run: None)
    monkeypatch.setattr(coordinator.Tracker, "log", lambda self, figures, step: None)
    run = TrackedRun(uri="", experiment="", name="first", id="1") if is_tracked else None
    told = Coordinator(run)
    told.report(Progress("embedding every clip", 3, 10, {"share": 0.5}))
    told.report(Progress("training", 4, 10, {"wait_share": 0.25}, damaged_clips=2), {"wait_share": 0.25})
    shown = {re.sub("unfused_ray_", "", name): value for (name, _), value in gauges.values.items()}
    assert shown == ({"wait_share": 0.25, "step": 4, "damaged_clips": 2} if is_tracked else {})
