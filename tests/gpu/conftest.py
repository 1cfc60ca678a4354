"""Fixture with the devices of these tests: a processor, and a GPU if there is one.

The tests import little, so that they run on a machine with torch and few of the project's other packages:
``pytest --confcutdir=tests/gpu -m gpu tests/gpu``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

# Set early: torch reads it at a process's first matrix product on a GPU, and the deterministic steps of
# test_waiting.py come after others.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder with ``gpu``."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """A processor, then a GPU; without a GPU the test is skipped, or fails if UNFUSED_RAY_REQUIRE_GPU is 1."""
    if request.param == "cuda" and not torch.cuda.is_available():
        if os.environ.get("UNFUSED_RAY_REQUIRE_GPU") == "1":
            pytest.fail("no CUDA device, and UNFUSED_RAY_REQUIRE_GPU=1 requires one")
        pytest.skip("no CUDA device")
    return torch.device(request.param, 0) if request.param == "cuda" else torch.device("cpu")
