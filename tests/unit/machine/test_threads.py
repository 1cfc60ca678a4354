"""The number of threads follows from the settings; on a busy machine a warning names the flag to set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from unfused_ray.clustering.clusterer import ClusteringPlan
from unfused_ray.config import RuntimeConfig
from unfused_ray.machine import threads as threads_module
from unfused_ray.machine.threads import Machine, choose_threads, load_warning, one_thread, usable_cores
from unfused_ray.training.worker.device import set_threads, warn_of_load


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
    assert choose_threads(requested, processes, 8, saved) == threads


@pytest.mark.parametrize(
    ("load", "threads", "processes", "flag"),
    [
        (0.0, 8, 1, ""),
        (0.4, 8, 1, ""),
        (0.6, 8, 1, "--runtime.threads 7 "),
        (3.0, 8, 1, "--runtime.threads 5 "),
        (3.0, 4, 2, "--runtime.threads 2 "),
        (3.0, 5, 1, ""),
        (3.0, 6, 1, "--runtime.threads 5 "),
        (7.9, 8, 1, "--runtime.threads 1 "),
        (40.0, 4, 1, "--runtime.threads 1 "),
        (40.0, 1, 1, ""),  # one thread waits for no other
    ],
)
def test_a_load_above_the_cores_that_are_left_is_said(load: float, threads: int, processes: int, flag: str) -> None:
    warning = load_warning(threads, processes, Machine(8, load))
    assert flag in warning and bool(warning) == bool(flag)
    assert not warning or f"8 cores with {load:.1f}" in warning


def test_this_machine_has_its_cores_and_a_load() -> None:
    machine = Machine.now()
    assert 1 <= usable_cores() <= machine.cores == os.cpu_count()
    assert 0 <= machine.load <= os.getloadavg()[0] + 1


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 96),
        ({"cpu.max": "max 100000\n"}, 96),
        ({"cpu.max": "1600000 100000\n"}, 16),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "5000 100000\n"}, 1),
        ({"cpu.max": "20000000 100000\n"}, 96),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 96),
    ],
)
def test_a_containers_quota_bounds_the_cores_wherever_they_are_shared_out(
    files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(threads_module, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(96)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 96)
    assert usable_cores() == cores
    shard = ClusteringPlan(10, 2, (2,), iterations=1, seed=0, assignments="").build_shard(0, 1)
    assert shard._threads == cores
    before = torch.get_num_threads()
    try:
        assert set_threads(RuntimeConfig(), 2) == torch.get_num_threads() == max(1, cores // 2)
    finally:
        torch.set_num_threads(before)


def test_threads_are_set_without_a_look_at_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: pytest.fail("the load decides nothing"))
    before = torch.get_num_threads()
    try:
        assert set_threads(RuntimeConfig(threads=1), 1) == torch.get_num_threads() == 1
        warn_of_load(RuntimeConfig(threads=1), 1, None)  # the load does not decide this either
    finally:
        torch.set_num_threads(before)


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
