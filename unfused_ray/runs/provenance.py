"""Provenance of a run: code, packages and machine, and the networks that it started from."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from unfused_ray import storage
from unfused_ray.config import DistillConfig, TrainingConfig
from unfused_ray.models.export import find_export, read_description
from unfused_ray.runs.checkpoints import MANIFEST, CheckpointStore
from unfused_ray.runs.run import Run

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


def origins(config: TrainingConfig) -> list[dict[str, str]]:
    """The runs and exports that a training begins with."""
    found = [upstream(place, trains_on=True) for place in (config.init_from, config.fork) if place]
    if isinstance(config, DistillConfig) and config.teacher:
        found.append(upstream(config.teacher))
    return found


def upstream(uri: str, trains_on: bool = False) -> dict[str, str]:
    """Folder of a run or an export, the run's id, and the SHA-256 of the weights that were taken from it.

    What is not there is left out.

    Args:
        uri: the folder.
        trains_on: whether the weights are those of the newest checkpoint that verifies, where there is one, whose
            manifest is named; otherwise they are those of the export.
    """
    known = {"uri": uri}
    export, newest = find_export(uri), CheckpointStore(uri, keep=1).newest() if trains_on else None
    if newest is not None:
        known["sha256"] = storage.sha256_file(storage.join(newest.uri, MANIFEST))
    elif export is not None:
        known["sha256"] = read_description(uri)["sha256"]
    for folder in (uri, storage.parent(export or uri)):
        if storage.exists(storage.join(folder, "run.json")):
            return {**known, "run": Run(folder).record()["id"]}
    return known


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS).stdout.strip()
