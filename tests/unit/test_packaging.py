"""The package declares what it imports and has the same version everywhere."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from support.paths import ROOT

from unfused_ray import __version__

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def imported() -> set[str]:
    """Return the top-level modules that the package imports, without its own and the standard library's."""
    found: set[str] = set()
    for path in set((ROOT / "unfused_ray").rglob("*.py")) - set((ROOT / "unfused_ray").rglob("hub_files/*")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"unfused_ray"}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_import_is_a_declared_dependency() -> None:
    extras = PROJECT["optional-dependencies"]
    texts = [*PROJECT["dependencies"], *(text for name in ("train", "search", "export") for text in extras[name])]
    declared = {normalised(re.split(r"[\[<>=!;~ ]", text)[0]) for text in texts}
    distributions = packages_distributions()
    missing = {
        module
        for module in imported() - {"mteb"}  # this kit imports the adapter
        if not declared & {normalised(distribution) for distribution in distributions.get(module, ())}
    }
    assert missing == set()


@pytest.mark.parametrize(
    "file", ["deploy/Containerfile", "deploy/kuberay/rayjob.yaml", "docs/guides/cluster-kubernetes.md"]
)
def test_images_carry_the_version_of_the_package(file: str) -> None:
    named = set(re.findall(r"unfused-ray:(\d+\.\d+\.\d+)", (ROOT / file).read_text()))
    assert named == {__version__}


def test_the_changes_begin_with_the_version_of_the_package() -> None:
    newest = re.search(r"^## (\S+),", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == __version__
