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
    """The runs and exports that a training begins with.

    Args:
        config: of the training.
        checkpoint: that its weights are from, as a fork or after a warm start.
    """
    found = [upstream(place, checkpoint) for place in (config.init_from, config.fork) if place]
    if isinstance(config, DistillConfig) and config.teacher:
        found.append(upstream(config.teacher))
    return found


def origin_facts(config: TrainingConfig, record: Mapping[str, Any] | None) -> dict[str, str]:
    """Identities of the runs or exports that a training begins with: facts by which a resume with others is refused.

    It does not depend on the folder's path, nor on what the other run has learnt since.

    Args:
        config: of the training.
        record: of the run, if it has begun.

    Returns:
        By the name of the field and "_identity", the run's id, or the SHA-256 of an export without a run. Once the
        folder is gone, what the record says; of a run that was begun before this was kept, nothing.
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
    """Folder of a run or an export, the run's id, and the SHA-256 of the weights taken from it, as far as they exist.

    Args:
        uri: the folder.
        checkpoint: that the weights are from: its manifest is hashed. None if they are those of the export.
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
    """The folder of a run: ``uri`` itself, or the one that the export at ``uri`` lies in; None where there is none.

    It goes by what is there, not by names: a run may be called as an export's folder is.
    """
    folders = uri, storage.parent(find_export(uri) or uri)
    return next((folder for folder in folders if is_run(folder)), None)
