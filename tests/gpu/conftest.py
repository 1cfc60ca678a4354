"""The devices of these tests: a processor, and a GPU where there is one.

They import little, so that they run on a machine that has torch and not the whole project:
``pytest --confcutdir=tests/gpu -m gpu tests/gpu``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

# torch looks for it at a process's first product on a GPU, and test_waiting.py has deterministic steps after others.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """A processor, then a GPU; without one the test is skipped, or fails where UNFUSED_RAY_REQUIRE_GPU is 1."""
    if request.param == "cuda" and not torch.cuda.is_available():
        if os.environ.get("UNFUSED_RAY_REQUIRE_GPU") == "1":
            pytest.fail("no CUDA device, and UNFUSED_RAY_REQUIRE_GPU=1 requires one")
        pytest.skip("no CUDA device")
    return torch.device(request.param, 0) if request.param == "cuda" else torch.device("cpu")
