"""The default folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from unfused_ray.home import home, local_home


def test_an_empty_variable_does_not_make_the_working_directory_the_default_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of variables, as for containers, set those that are unknown to nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNFUSED_RAY_HOME", "")
    assert home() == local_home() == str(Path.home() / "unfused-ray")
