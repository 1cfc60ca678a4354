"""The environment of a run names its own code, and every package that is installed."""

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
    monkeypatch.delenv(environment.COMMIT, raising=False)
    assert environment.git_commit() == ""
    monkeypatch.setenv(environment.COMMIT, "of the image")
    assert environment.git_commit() == environment.environment()["commit"] == "of the image"
    monkeypatch.delenv(environment.COMMIT)
    git("init")
    git("commit", "--allow-empty", "-m", "another project's")
    assert environment.git_commit() == ""
    git("add", ".")
    git("commit", "-m", "the package")
    commit = git("rev-parse", "HEAD")
    monkeypatch.setenv(environment.COMMIT, "of an image")
    assert environment.git_commit() == commit  # the checkout counts more than the variable
    (package / "__init__.py").write_text("changed = True\n")
    assert environment.git_commit() == f"{commit}-dirty"


def test_copies_of_one_state_of_the_code_have_the_same_digest_and_others_have_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = []
    for name, text in (("a", "x = 1\n"), ("b", "x = 1\n"), ("c", "x = 2\n")):
        package = tmp_path / name / "unfused_ray"
        (package / "runs").mkdir(parents=True)
        (package / "__init__.py").write_text(text)
        monkeypatch.setattr(environment, "__file__", str(package / "runs" / "environment.py"))
        digests.append(environment.environment()["code"])
    assert digests[0] == digests[1] != digests[2]
