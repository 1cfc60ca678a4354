"""What a run was made by and from, as tags of its MLflow run: code, clips, and the networks it began with."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from unfused_ray import storage
from unfused_ray.config import DistillConfig, TrainingConfig
from unfused_ray.data.shards import Manifest
from unfused_ray.models.export import find_export, read_description
from unfused_ray.training.checkpoint import MANIFEST, CheckpointStore
from unfused_ray.training.run import Run
from unfused_ray.training.tracking import MAX_TAG, TAGS

GIT_TAG = "mlflow.source.git.commit"
"""MLflow shows it as the version of a run."""
_DECISIVE = ("torch", "torchaudio", "ray", "numpy", "pyarrow", "scikit-learn", "mlflow")
_SECONDS = 10.0
"""A git that takes longer, as on a network's file system, is not waited for."""


def tags(
    stage: str, folder: str, data: Sequence[Manifest] = (), upstream: Sequence[Mapping[str, str]] = ()
) -> dict[str, str]:
    """What says where a run comes from.

    Args:
        stage: what it is.
        folder: where it is.
        data: of its clips.
        upstream: see :func:`upstream`.
    """
    found = {"stage": stage, "folder": folder, "version": package_version()}
    if data:
        found["data"] = _as_json([{"uri": manifest.uri, "checksum": manifest.checksum} for manifest in data])
    if upstream:
        found["upstream"] = _as_json(upstream)
    commit = git_commit()
    return {TAGS + name: value for name, value in found.items()} | ({GIT_TAG: commit} if commit else {})


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


def _as_json(entries: Sequence[Mapping[str, str]]) -> str:
    """As many entries as a tag has room for, the first ones, and the number of those that are left out."""
    kept = [dict(each) for each in entries]
    text = json.dumps(kept)
    while len(text) > MAX_TAG:
        kept.pop()
        text = json.dumps([*kept, {"left_out": len(entries) - len(kept)}])
    return text


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS).stdout.strip()
