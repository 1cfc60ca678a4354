"""The default executor is this process for small work; it is Ray for large work, or if Ray is running or addressed."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from unfused_ray.data.parts.default_executor import default_executor
from unfused_ray.data.parts.executor import InThisProcess
from unfused_ray.data.parts.ray_tasks import RayTasks


@pytest.mark.parametrize(
    ("is_small", "address", "has_started", "expected"),
    [
        (True, "", False, InThisProcess),
        (True, "", True, RayTasks),
        (True, "auto", False, RayTasks),
        (False, "", False, RayTasks),
    ],
)
def test_small_work_starts_no_ray_and_uses_one_that_is_there(
    is_small: bool, address: str, has_started: bool, expected: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: has_started))
    assert isinstance(default_executor(is_small=is_small), expected)
