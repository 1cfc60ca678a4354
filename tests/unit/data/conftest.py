"""Fixture that makes an ingest run without Ray."""

from __future__ import annotations

import pytest

from unfused_ray.data.parts.executor import IN_PROCESS
from unfused_ray.data.shards import ingest


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ingest in this process: texts and refusals do not depend on where archives are listed and shards written."""
    monkeypatch.setattr(ingest, "default_executor", lambda is_small=False: IN_PROCESS)
