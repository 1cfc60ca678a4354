"""The environment of a run: code, packages and machine."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unfused_ray import __version__
from unfused_ray.config import differences
from unfused_ray.extras import package_version

logger = logging.getLogger(__name__)

COMMIT = "UNFUSED_RAY_COMMIT"
"""Environment variable that names the commit of code outside a checkout, as in an image or a submitted job."""
EARLIER = "earlier_environments"
"""Field of a record: environments of the starts before the newest, each once. Older records lack it."""
_DECISIVE = ("torch", "ray", "numpy", "pyarrow", "scikit-learn", "mlflow")
_SECONDS = 10.0
"""Longest wait for git in seconds, which may be slow on a network's file system."""


def git_commit() -> str:
    """Return the commit of this package's code, with ``-dirty`` if files have changed since; '' if unknown.

    For code outside a checkout it is the value of the environment variable ``COMMIT``, such as that of an image. A job
    that brings other code must set the variable itself; the digest of the code shows the difference in any case.
    """
    package = Path(__file__).parents[1]
    try:
        # An installed package may lie in the checkout of another project, which does not track the package's files.
        _git(package, "ls-files", "--error-unmatch", "__init__.py")
        return _git(package, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return os.environ.get(COMMIT, "")


def code_digest() -> str:
    """Return a digest of this package's Python files, equal for all copies of one state of the code."""
    package, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def environment() -> dict[str, str]:
    """Return versions of the packages that affect results, commit and digest of the code, and machine, as far as
    known."""
    known = {"python": platform.python_version(), "unfused-ray": __version__, "commit": git_commit()}
    known["code"] = code_digest()
    known |= {name: package_version(name) for name in _DECISIVE}
    known["machine"] = f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} CPUs"
    return {name: value for name, value in known.items() if value}


def resumed(uri: str, record: Mapping[str, Any], new: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a resumed run's record: the new environment, and the other environments it had before.

    If code or packages differ from those of the last start, a warning says so.

    Args:
        uri: folder of the run or sweep.
        record: the record as it was written before.
        new: environment of this start.
    """
    old: Mapping[str, str] = record["environment"]
    changes = differences(old, new)
    if old and changes.keys() - {"machine"}:
        logger.warning("%s is resumed with other code or packages than before: %s", uri, ", ".join(changes.values()))
    others = [*record.get(EARLIER, ()), dict(old)]
    kept = [each for number, each in enumerate(others) if each not in ({}, new, *others[:number])]
    return {"environment": dict(new), EARLIER: kept}


def earlier_in_words(record: Mapping[str, Any]) -> str:
    """Describe how environments of earlier starts differ from the newest, by name and value; "" if none does."""
    newest: Mapping[str, str] = record["environment"]
    return "; ".join(
        ", ".join(
            f"{name} {each.get(name, 'unknown')}"
            for name in dict.fromkeys([*newest, *each])
            if each.get(name) != newest.get(name)
        )
        for each in record.get(EARLIER, ())
    )


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS).stdout.strip()
