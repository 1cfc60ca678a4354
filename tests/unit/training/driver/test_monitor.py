"""The driver shows progress, and no longer writes to a run that another process has taken over."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from support.processes import wait_for
from support.runs import STEPS, train

from unfused_ray import lease
from unfused_ray.config import PretrainConfig
from unfused_ray.training.coordinator import Coordinator, RunProgress
from unfused_ray.training.driver import monitor
from unfused_ray.training.worker import reporter


def test_a_run_that_another_process_has_taken_over_ends_without_writing_to_it(
    config: Callable[..., PretrainConfig], tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = config("run", checkpoint__every_minutes=1e-9, tracking__uri=tracking_uri)
    monkeypatch.setattr(reporter, "REPORT_SECONDS", 0.0)
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.04)
    monkeypatch.setattr(monitor, "POLL_SECONDS", 0.02)
    report, seen = Coordinator.report, {}
    threads = set(threading.enumerate())

    def reporting(self: Coordinator, progress: RunProgress, metrics: Mapping[str, float] | None = None) -> str:
        if progress.step == STEPS + 1:  # another machine takes over; wait until this run knows
            leased = Path(job.output, "lease.json")
            while not self._abandoned:
                leased.write_text(json.dumps({**json.loads(leased.read_text()), "token": "another's"}))
                threading.Event().wait(0.01)
            seen.update(files(Path(job.output)))
        return report(self, progress, metrics)

    monkeypatch.setattr(Coordinator, "report", reporting)
    with pytest.raises(lease.InUseError, match="another process has taken"):
        train(job)
    assert files(Path(job.output)) == seen
    assert json.loads(Path(job.output, "lease.json").read_text())["token"] == "another's"
    wait_for(lambda: not [t for t in threading.enumerate() if t.name == "tracker" and t not in threads])


def files(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files of a folder but the lease."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lease.json"}


def test_a_long_pass_that_embeds_clips_is_drawn_by_its_share() -> None:
    drawn = monitor.drawn_bar(RunProgress("embedding every clip", figures={"share": 0.25}))
    assert drawn == monitor.DrawnBar("embedding every clip", 25, 100, "%")
    assert monitor.drawn_bar(RunProgress("clustering")) is None


def test_the_bar_of_a_run_with_an_early_end_reaches_to_that_end(
    config: Callable[..., PretrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the time left would be that of epochs which are not trained."""
    report, totals = Coordinator.report, set()

    def noting(self: Coordinator, progress: RunProgress, metrics: Mapping[str, float] | None = None) -> str:
        totals.add(progress.num_steps)
        return report(self, progress, metrics)

    monkeypatch.setattr(Coordinator, "report", noting)
    train(config("run", stop_after=1))
    assert totals == {STEPS}


@pytest.mark.parametrize(
    ("steps", "ended"),
    [
        ([0, 1, 2, 3], 0),  # step 3 ends an epoch, its checkpoint may not be written yet
        ([0, 2, 4], 1),
        ([0, 3, 4, 5, 6, 7], 2),
        ([0, 11, 12], 1),  # several epochs between two looks
        ([8, 9, 10], 1),  # a resumed run
        ([8, 4, 7], 1),  # a restarted worker group
    ],
)
def test_the_end_of_an_epoch_is_told_once_the_next_has_begun(steps: list[int], ended: int) -> None:
    told: list[None] = []
    ends = monitor.EpochEnds(STEPS, lambda: told.append(None))
    for step in steps:
        ends.look(RunProgress("training", step))
    assert len(told) == ended
