"""Fixture with the encoder that the adapters load."""

from __future__ import annotations

import pytest
from support.tasks import write_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_encoder(tmp_path_factory.mktemp("encoder"), "fc1")
