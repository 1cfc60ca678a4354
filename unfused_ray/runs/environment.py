"""The software and the machine that a run is made with: versions, commit, processor."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_DECISIVE = ("torch", "torchaudio", "ray", "numpy", "pyarrow", "scikit-learn", "mlflow")
_SECONDS = 10.0
"""A git that takes longer, as on a network's file system, is not waited for."""


def package_version() -> str:
    """Of this package; '' where it runs without being installed."""
    try:
        return version("unfused-ray")
    except PackageNotFoundError:
        return ""


def git_commit() -> str:
    """Commit that this package's code is of, with ``-dirty`` where files have changed since; '' where there is none."""
    package = Path(__file__).parents[1]
    try:
        # An installed package may lie in the checkout of another project, which does not know its files.
        _git(package, "ls-files", "--error-unmatch", "__init__.py")
        return _git(package, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return ""


def environment() -> dict[str, str]:
    """What a process runs on: versions of what decides results, commit of the code, machine."""
    versions = {name: version(name) for name in _DECISIVE}
    code = {"unfused-ray": package_version(), "commit": git_commit()}
    machine = f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} CPUs"
    return {"python": platform.python_version(), **{k: v for k, v in code.items() if v}, **versions, "machine": machine}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS).stdout.strip()
