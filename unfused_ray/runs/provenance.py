"""Provenance of a run: the runs and exports that it started from."""

from __future__ import annotations

from unfused_ray import storage
from unfused_ray.config import DistillConfig, TrainingConfig
from unfused_ray.models.export import find_export, read_description
from unfused_ray.runs.checkpoints import MANIFEST, Checkpoint
from unfused_ray.runs.run import Run


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
    for folder in (uri, storage.parent(export or uri)):
        if storage.exists(storage.join(folder, "run.json")):
            return {**known, "run": Run(folder).record()["id"]}
    return known
