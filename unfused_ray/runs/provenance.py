"""Provenance of a run: the runs and exports that it started from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unfused_ray import storage
from unfused_ray.config import DistillConfig, TrainingConfig
from unfused_ray.models.export import find_export, read_description
from unfused_ray.runs.checkpoints import MANIFEST, Checkpoint
from unfused_ray.runs.run import Run, is_run


def origins(config: TrainingConfig, checkpoint: Checkpoint | None) -> list[dict[str, str]]:
    """Return the runs and exports that a training begins with.

    Args:
        config: settings of the training.
        checkpoint: checkpoint that its weights come from, as a fork or after a warm start.
    """
    found = [upstream(place, checkpoint) for place in (config.init_from, config.fork) if place]
    if isinstance(config, DistillConfig) and config.teacher:
        found.append(upstream(config.teacher))
    return found


def origin_facts(config: TrainingConfig, record: Mapping[str, Any] | None) -> dict[str, str]:
    """Identify the runs or exports that a training begins with; a resume with others is refused.

    The identities depend neither on the folder's path nor on the other run's further training.

    Args:
        config: settings of the training.
        record: record of the run, if it has begun.

    Returns:
        The run's id, or the SHA-256 of an export without a run, by the field's name with "_identity". Once the folder
        is gone, the value in the record; nothing for a run begun before identities were recorded.
    """
    facts, known = dict[str, str](), record["facts"] if record else {}
    for field in ("init_from", "fork"):
        place, name = config.get(field), f"{field}_identity"
        if not place or (record and record["config"][field] and name not in known):
            continue
        found = upstream(place)
        if identity := found.get("run") or found.get("sha256") or known.get(name):
            facts[name] = identity
    return facts


def upstream(uri: str, checkpoint: Checkpoint | None = None) -> dict[str, str]:
    """Return the folder of a run or export, the run's id and the SHA-256 of the weights taken from it, if they exist.

    Args:
        uri: folder of the run or export.
        checkpoint: checkpoint that the weights come from, whose manifest is hashed. None if the weights are the
            export's.
    """
    known = {"uri": uri}
    export = find_export(uri)
    if checkpoint is not None:
        known["sha256"] = storage.sha256_file(storage.join(checkpoint.uri, MANIFEST))
    elif export is not None:
        known["sha256"] = read_description(uri)["sha256"]
    run = find_run(uri)
    return known if run is None else {**known, "run": Run(run).record()["id"]}


def find_run(uri: str) -> str | None:
    """Return the folder of a run: ``uri`` itself, or the one with the export at ``uri``; None if there is none.

    It looks for a run's files, not at names, because a run may have the name of an export's folder.
    """
    folders = uri, storage.parent(find_export(uri) or uri)
    return next((folder for folder in folders if is_run(folder)), None)
