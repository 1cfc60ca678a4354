"""The environment of a run: code, packages and machine."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from unfused_ray import __version__
from unfused_ray.extras import package_version

_DECISIVE = ("torch", "ray", "numpy", "pyarrow", "scikit-learn", "mlflow")
_SECONDS = 10.0
"""Seconds after which git, as on a network's file system, is not waited for."""


def git_commit() -> str:
    """Commit of this package's code, with ``-dirty`` if files have changed since; '' if there is none."""
    package = Path(__file__).parents[1]
    try:
        # An installed package may lie in the checkout of another project, which does not know its files.
        _git(package, "ls-files", "--error-unmatch", "__init__.py")
        return _git(package, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return ""


def environment() -> dict[str, str]:
    """Versions of the packages that decide results, commit of the code, and machine, as far as they are known."""
    known = {"python": platform.python_version(), "unfused-ray": __version__, "commit": git_commit()}
    known |= {name: package_version(name) for name in _DECISIVE}
    known["machine"] = f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} CPUs"
    return {name: value for name, value in known.items() if value}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS).stdout.strip()
