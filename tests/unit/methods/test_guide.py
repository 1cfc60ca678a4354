"""The method that the guide adds passes the guide's test and trains by the guide's recipe."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.pages import Block, blocks
from support.paths import ROOT
from support.runs import history
from support.sources import write_source

GUIDE = ROOT / "docs" / "guides" / "add-a-method.md"


def patched(text: str, change: Block) -> str:
    """Apply the hunks of a diff to a text; each must fit exactly one place."""
    for hunk in change.text.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] != "+")
        new = "".join(line[1:] for line in lines if line[0] != "-")
        assert text.count(old) == 1, f"{change}: {old}"
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package and the guide's test, after all changes of the guide."""
    folder = tmp_path_factory.mktemp("copy")
    package = folder / "unfused_ray"
    shutil.copytree(ROOT / "unfused_ray", package, ignore=shutil.ignore_patterns("__pycache__"))
    for block in blocks("python", [GUIDE]):
        place = folder if block.title.startswith("test_") else package
        (place / block.title).write_text(block.text, encoding="utf-8")
    for block in blocks("diff", [GUIDE]):
        file = package / block.title
        file.write_text(patched(file.read_text(encoding="utf-8"), block), encoding="utf-8")
    return folder


def run(copy: Path, *arguments: str) -> str:
    """Run Python on the copy; return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    ended = subprocess.run(
        [sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_its_test_compares_values_and_gradients(copy: Path) -> None:
    run(copy, "-m", "pytest", "-p", "no:cacheprovider", "-q", "test_vicreg.py")


def test_its_recipe_trains_and_every_term_of_its_loss_is_shown(copy: Path) -> None:
    write_source(copy / "source", [[40, 30]], (7_000, 20_000))
    options = {"data": copy / "source", "output": copy / "run", "optimizer.lr": 0.01, "epochs": 3}
    options |= {"stop-after": 2, "tracking.uri": "off", "runtime.threads": 1}  # an unfinished run draws no pictures
    given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    printed = run(copy, "-m", "unfused_ray", "pretrain", "vicreg-tiny", *given)
    first, second = history(copy / "run")
    assert second["loss"] < first["loss"]
    assert second["effective_rank"] > 2
    for term in ("invariance", "variance", "covariance"):
        assert re.search(rf"\b{term} +{first[term]:.3f} → {second[term]:.3f}", printed), printed
