"""Fixtures of whole trainings: sources, configurations, and uninterrupted runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.runs import SETTINGS, tiny, train
from support.sources import write_source

from unfused_ray.config import PretrainConfig


@pytest.fixture
def config(source: Path, tmp_path: Path) -> Callable[..., PretrainConfig]:
    """Return a function: configuration of an untracked run into the folder ``name``, with changed fields."""
    return lambda name, **fields: tiny(source, tmp_path / name, "off", **fields)


@pytest.fixture(scope="session")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function: folder of an uninterrupted run, by name of its settings."""
    folder = tmp_path_factory.mktemp("undisturbed")

    def run_of(settings: str) -> Path:
        output = folder / settings
        if not output.exists():
            assert train(tiny(source, output, "off", **SETTINGS[settings])).state == "finished"
        return output

    return run_of


@pytest.fixture(scope="session")
def other_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other")
    write_source(folder, [[70]], lengths=(7_000,))
    return folder
