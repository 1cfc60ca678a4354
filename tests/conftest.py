"""Shared fixtures: one local Ray session for the whole suite."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Before `import ray`: every Ray port of a one-machine cluster stays on loopback.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A local Ray cluster of two CPUs."""
    from unfused_ray import cluster

    with cluster.session(num_cpus=2):
        yield
