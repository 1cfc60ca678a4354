"""A run's start times, in seconds since the command, are those of the first time and kept in the run's folder."""

from __future__ import annotations

import pickle
import re
import time
from pathlib import Path

from support.runs import tiny, train
from support.sources import write_source

from unfused_ray.runs.files import write_file
from unfused_ray.runs.start_times import START, StartTimes, process_started, read_arithmetic, read_start_times


def test_a_milestone_counts_the_first_time_it_is_reached():
    start_times = StartTimes(began=100.0)
    assert start_times.reach("checked", when=102.5)
    assert not start_times.reach("checked", when=200.0)
    assert start_times.reached == {"checked": 2.5}


def test_milestones_travel_and_are_written_in_their_order(tmp_path: Path):
    start_times = StartTimes(began=100.0)
    start_times.reach("step", when=103.0)
    start_times.reach("checked", when=102.5)
    pickle.loads(pickle.dumps(start_times)).write(str(tmp_path))
    assert list(read_start_times(str(tmp_path)).items()) == [("checked", 2.5), ("step", 3.0)]


def test_a_process_was_started_before_now():
    assert 0 < time.time() - process_started() < 3600 * 24


def test_a_run_leaves_how_it_came_to_its_first_step(tmp_path: Path, tracking_uri: str):
    source = tmp_path / "source"
    write_source(source, [[40, 30]], lengths=(7_000,))
    train(tiny(source, tmp_path / "run", tracking_uri, epochs=1))
    reached = read_start_times(str(tmp_path / "run"))
    order = ["checked", "data and labels ready", "loop built", "first block", "labels"]
    assert list(reached) == [*order, "first step"]
    assert sorted(reached.values()) == list(reached.values())
    assert re.fullmatch(r"float32 on 1 thread of a CPU with.*", read_arithmetic(str(tmp_path / "run")))


def test_a_start_that_an_older_version_wrote_names_no_arithmetic(tmp_path: Path):
    write_file(str(tmp_path), START, {"seconds": {"checked": 1.0}})
    assert read_arithmetic(str(tmp_path)) == ""
    assert read_start_times(str(tmp_path)) == {"checked": 1.0}
