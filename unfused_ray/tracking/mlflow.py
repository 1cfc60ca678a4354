"""A run in MLflow: its name there, its parameters and tags, and the results that are added to it."""

from __future__ import annotations

import json
import logging
import re
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unfused_ray import __version__, storage
from unfused_ray.data.shards.format import Manifest
from unfused_ray.runs.environment import git_commit
from unfused_ray.tracking.store import OFF, explain, find_experiment, prepare_mlflow

logger = logging.getLogger(__name__)

TAGS = "unfused_ray."
"""Prefix of the project's tags."""
RUN_TAG = f"{TAGS}run"
"""Tag that holds the project's id of a run."""
FILE = "tracking.json"
"""File in which :func:`kept_id` keeps an id."""
_FORMAT_VERSION = 1
GIT_TAG = "mlflow.source.git.commit"
"""Tag that MLflow shows as the version of a run."""
CONFIG = "config.json"
"""Artefact with the full configuration."""
MAX_TAG = 5000
"""Largest number of characters in a tag."""
MAX_PARAM = 6000
"""Largest number of characters in the value of a parameter, MLflow's limit."""
MAX_NAME = 250
"""Largest number of characters in the name of a metric or a run, MLflow's limit."""


def metric_name(text: str) -> str:
    """Return ``text`` as a name that MLflow takes for a metric.

    Characters that it refuses are replaced. A name that is too long keeps its ends, which tell the row and the measure;
    a hash between them tells it from other names.
    """
    name = re.sub(r"[^\w\-. /:]", "_", text)  # letters of any script stay: rows must not share a name
    name = re.sub(r"(?<![^/])\.", "_", name)  # MLflow reads names as paths, and refuses those with . and ..
    if len(name) <= MAX_NAME:
        return name
    return f"{name[:120]}-{storage.sha256(text.encode())[:8]}-{name[-120:]}"


@dataclass(frozen=True)
class TrackedRun:
    """A run in MLflow: only values, so that it can be sent to any process. Credentials of URIs in its values are
    masked."""

    uri: str
    """MLflow tracking URI."""
    experiment: str
    """Name of the run's experiment, which is created if it does not exist."""
    name: str
    """Name shown in MLflow."""
    id: str
    """The project's id of the run, by which a resumed run finds its MLflow run."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Configuration of the newest start, kept as an artefact."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Parameters; they keep the values that the run began with."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Tags of the newest start."""
    parent: str = ""
    """The project's id of the run that this one is a part of."""
    system_metrics: bool = False
    """True to log CPU and memory of this machine under MLflow's names. MLflow's own monitor is not used, because it
    sends each metric separately, and ends at the first that does not arrive."""

    def __post_init__(self) -> None:
        """Mask the credentials of URIs, because everyone who may look at an experiment sees all of these values."""
        for name in ("config", "params", "tags"):
            object.__setattr__(self, name, masked_values(getattr(self, name)))


def kept_id(folder: str) -> str:
    """Return the project's id of a folder's content; the first call makes it and keeps it there."""
    path = storage.join(folder, FILE)
    if not storage.exists(path):
        storage.write_json(path, {"id": uuid.uuid4().hex}, _FORMAT_VERSION)
    kept: str = storage.read_json(path, _FORMAT_VERSION, "delete it to begin a new MLflow run")["id"]
    return kept


def log_results(run: TrackedRun, files: Sequence[str], places: Mapping[str, str], folder: str | None = None) -> bool:
    """Add files, such as pictures and tables, and the locations of results to the MLflow run of a run.

    The run may have ended, or may still be running.

    Args:
        run: the run, which is found by its ``uri``, ``experiment`` and ``id``.
        files: URIs of files to keep as artefacts.
        places: locations of results, which become tags, by name.
        folder: folder for the files among the run's artefacts; None for the topmost.

    Returns:
        True if they arrived; otherwise a warning says why, unless nothing is tracked.
    """
    if run.uri == OFF:
        return False
    prepare_mlflow()
    from mlflow import MlflowClient  # here, because importing MLflow takes seconds

    try:
        client = MlflowClient(tracking_uri=run.uri)
        found = find_run(client, run.experiment, run.id)
        if found is None:
            raise LookupError(f"there is no MLflow run of run {run.id}")
        for name, value in places.items():
            client.set_tag(found.info.run_id, TAGS + name, storage.masked(value))
        with tempfile.TemporaryDirectory() as copies:
            for file in files:
                path = Path(copies, storage.name(file))
                path.write_bytes(storage.read_bytes(file))
                client.log_artifact(found.info.run_id, str(path), folder)
    except Exception as error:  # noqa: BLE001 - whatever the tracking store raises, the run itself is safe
        logger.warning("the results did not reach %s: %s", storage.masked(run.uri), explain(error))
        return False
    return True


def find_run(client: Any, experiment: str, run_id: str) -> Any | None:
    """Return the MLflow run of the project's run with this id; None if there is none.

    Raises:
        StoreError: the experiment is deleted.
    """
    found = find_experiment(client, experiment)
    condition = f"tags.`{RUN_TAG}` = '{run_id}'"
    runs = client.search_runs([found.experiment_id], condition, max_results=1) if found else []
    return runs[0] if runs else None


def masked_values(value: Any) -> Any:
    """Return a configuration, or a part of one, with the credentials of its URIs masked."""
    if isinstance(value, str):
        return storage.masked(value)
    if isinstance(value, Mapping):
        return {key: masked_values(each) for key, each in value.items()}
    return [masked_values(each) for each in value] if isinstance(value, list | tuple) else value


def tags(
    stage: str, folder: str, data: Sequence[Manifest] = (), upstream: Sequence[Mapping[str, str]] = ()
) -> dict[str, str]:
    """Return the tags of a run: stage, folder, version and commit of the code, data, and the runs it began with.

    Args:
        stage: stage of the run.
        folder: folder of the run.
        data: manifests of its clips.
        upstream: runs and exports it began with, from :mod:`unfused_ray.runs.provenance`.
    """
    found = {"stage": stage, "folder": folder, "version": __version__}
    if data:
        found["data"] = _as_json([{"uri": manifest.uri, "checksum": manifest.checksum} for manifest in data])
    if upstream:
        found["upstream"] = _as_json(upstream)
    commit = git_commit()
    return {TAGS + name: value for name, value in found.items()} | ({GIT_TAG: commit} if commit else {})


def _as_json(entries: Sequence[Mapping[str, str]]) -> str:
    """Return as many of the first entries as a tag has room for, and the number of those left out."""
    kept = [dict(each) for each in entries]
    text = json.dumps(kept)
    while len(text) > MAX_TAG:
        kept.pop()
        text = json.dumps([*kept, {"left_out": len(entries) - len(kept)}])
    return text
