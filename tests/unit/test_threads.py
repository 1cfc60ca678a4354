"""Threads follow from the settings; a busy machine is said, with the flag that decides."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from unfused_ray import threads as threads_module
from unfused_ray.threads import Machine, choose_threads, one_thread


@pytest.mark.parametrize(
    ("requested", "processes", "saved", "threads"),
    [
        (0, 1, None, 8),
        (0, 2, None, 4),
        (0, 3, None, 2),
        (0, 20, None, 1),
        (3, 1, None, 3),
        (0, 1, 6, 6),
        (3, 1, 6, 3),
        (0, 2, 6, 4),
        (0, 1, 16, 8),
    ],
)
def test_threads_are_those_asked_for_or_the_checkpoints_or_a_share_of_the_cores(
    requested: int, processes: int, saved: int | None, threads: int
) -> None:
    for load in (0.0, 50.0):
        assert choose_threads(requested, processes, Machine(8, 8, load), saved)[0] == threads


@pytest.mark.parametrize(
    ("load", "requested", "processes", "flag"),
    [
        (0.0, 0, 1, ""),
        (0.4, 0, 1, ""),
        (0.6, 0, 1, "--runtime.threads 7 "),
        (3.0, 0, 1, "--runtime.threads 5 "),
        (3.0, 0, 2, "--runtime.threads 2 "),
        (3.0, 5, 1, ""),
        (3.0, 6, 1, "--runtime.threads 5 "),
        (7.9, 0, 1, "--runtime.threads 1 "),
        (40.0, 4, 1, "--runtime.threads 1 "),
        (40.0, 1, 1, ""),  # one thread waits for nobody
    ],
)
def test_a_load_above_the_cores_that_are_left_is_said(load: float, requested: int, processes: int, flag: str) -> None:
    warning = choose_threads(requested, processes, Machine(8, 8, load))[1]
    assert flag in warning and bool(warning) == bool(flag)
    assert not warning or f"8 cores with {load:.1f}" in warning


def test_this_machine_has_its_cores_and_a_load() -> None:
    machine = Machine.now()
    assert 1 <= machine.usable_cores <= machine.cores == os.cpu_count()
    assert 0 <= machine.load <= os.getloadavg()[0] + 1


def test_one_thread_is_for_its_context_alone() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), one_thread():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("running", "expected"), [([3, 2, 1, 3], 0), ([3] * 8, 2), ([3, 2, *[3] * 6], 1)])
def test_what_runs_at_one_moment_only_is_no_load(
    running: list[int], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loadavg").touch()
    moments = iter(running)
    monkeypatch.setattr(threads_module, "_LOAD", tmp_path / "loadavg")
    monkeypatch.setattr(Path, "read_text", lambda path: f"9.0 9.0 9.0 {next(moments)}/600 1")
    monkeypatch.setattr(os, "getloadavg", lambda: (9.0, 9.0, 9.0))
    assert Machine.now().load == expected
