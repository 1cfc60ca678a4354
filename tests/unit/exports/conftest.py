"""Fixture with the student that the tests export."""

from __future__ import annotations

import pytest
from support.exports import Exportable, write_student


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Exportable:
    return write_student(tmp_path_factory.mktemp("student"))
