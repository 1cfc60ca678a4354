"""The benchmark of disturbed jobs counts a bound that it could not measure as a failure."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.chaos import run
from benchmarks.chaos.faults import Injected, Outcome
from benchmarks.chaos.training import _within_bound
from unfused_ray.runs.checkpoints import Position
from unfused_ray.training.coordinator import RunProgress


@pytest.mark.parametrize(
    ("began", "expected"),
    [([(3, 0)], True), ([(3, 0), (2, 5)], False), ([], None)],
    ids=["after the checkpoint", "once before it", "not recorded"],
)
def test_a_bound_without_a_recorded_beginning_is_not_held(
    tmp_path: Path, began: list[tuple[int, int]], expected: bool | None
) -> None:
    time = datetime.fromtimestamp(105, UTC).isoformat()
    phase = RunProgress.phase
    records = [{"message": phase, "epoch": epoch, "step": step, "time": time} for epoch, step in began]
    early = {"message": phase, "epoch": 0, "step": 0, "time": datetime.fromtimestamp(95, UTC).isoformat()}
    log = tmp_path / "records.jsonl"
    log.write_text("\n".join(map(json.dumps, [early, *records, {"message": "other"}])))
    assert _within_bound(log, Injected("driver", 100.0), Position(2, 9).folder, 110.0) is expected


def test_the_report_says_what_was_not_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run._report([Outcome("pretrain", "driver", 1.0, True, 4, None)], tmp_path)
    assert "NOT MEASURED" in capsys.readouterr().out
