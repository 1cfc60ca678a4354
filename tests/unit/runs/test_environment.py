"""The environment of a run is that of its own code, and complete as far as it is known."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from unfused_ray import extras
from unfused_ray.runs import environment


def test_a_package_that_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def version_without_ray(name: str) -> str:
        if name == "ray":
            raise PackageNotFoundError(name)
        return version(name)

    assert environment.environment()["ray"]
    monkeypatch.setattr(extras, "version", version_without_ray)
    found = environment.environment()
    assert "ray" not in found
    assert found["torch"] == version("torch")


def test_the_commit_is_that_of_the_code_and_of_no_other_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    package = tmp_path / "unfused_ray"
    (package / "training").mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setattr(environment, "__file__", str(package / "runs" / "environment.py"))
    assert environment.git_commit() == ""
    git("init")
    git("commit", "--allow-empty", "-m", "another project's")
    assert environment.git_commit() == ""
    git("add", ".")
    git("commit", "-m", "the package")
    commit = git("rev-parse", "HEAD")
    assert environment.git_commit() == commit
    (package / "__init__.py").write_text("changed = True\n")
    assert environment.git_commit() == f"{commit}-dirty"
