"""Threads follow from the settings; a busy machine is said, with the flag that decides."""

from __future__ import annotations

import os

import pytest
import torch

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
