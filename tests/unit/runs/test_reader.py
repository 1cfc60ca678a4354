"""A reader finds only what a run has finished writing to its folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.finished_runs import NUM_CLIPS, make_assignment

from unfused_ray.clustering.assignment import write_assignment
from unfused_ray.config import (
    PretrainConfig,
)
from unfused_ray.figures import run as pictures
from unfused_ray.runs.reader import RunReader, curves
from unfused_ray.runs.run import Run
from unfused_ray.runs.status import Status


def test_a_run_without_an_assignment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not the folder of a run"):
        pictures.write(str(tmp_path))
    Run(str(tmp_path)).open(PretrainConfig(), {"num_clips": 1})
    with pytest.raises(FileNotFoundError, match="holds no assignment"):
        _ = RunReader(str(tmp_path)).assignment


def test_an_assignment_that_is_being_written_does_not_count_yet(tmp_path: Path) -> None:
    Run(str(tmp_path)).open(PretrainConfig(), {"num_clips": NUM_CLIPS})
    unfinished = tmp_path / "assignments" / "epoch-0001" / "head-0.parquet"
    unfinished.parent.mkdir(parents=True)
    unfinished.write_bytes(b"the first of several files")
    assert not RunReader(str(tmp_path)).has_assignment
    write_assignment(str(tmp_path / "assignments" / "epoch-0000"), make_assignment(0))
    run = RunReader(str(tmp_path))
    assert run.has_assignment and run.assignment.epoch == 0


def test_a_reader_keeps_to_the_state_that_it_has_read_first(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    run.open(PretrainConfig(), {"num_clips": NUM_CLIPS})
    run.write_status(Status("running", 1, 0))
    run.write_history([{"epoch": 0.0, "loss": 2.0}])
    reader = RunReader(str(tmp_path))
    first = reader.status(), reader.history()
    run.write_status(Status("finished", 2, 0))
    run.write_history([{"epoch": 0.0, "loss": 2.0}, {"epoch": 1.0, "loss": 1.0}])
    assert (reader.status(), reader.history()) == first
    later = RunReader(str(tmp_path)).status()
    assert later is not None and later.epoch == len(run.history()) == 2


def test_each_head_has_its_own_curve() -> None:
    history = [{"epoch": 3.0, "head0/inertia": 1.0, "head1/inertia": 2.0, "inertia_of_something": 9.0}]
    assert curves(history, "inertia") == {"head0": ([4], [1.0]), "head1": ([4], [2.0])}
