"""The networks that a run started from."""

from __future__ import annotations

from unfused_ray import storage
from unfused_ray.config import DistillConfig, TrainingConfig
from unfused_ray.models.export import find_export, read_description
from unfused_ray.runs.checkpoints import MANIFEST, CheckpointStore
from unfused_ray.runs.run import Run


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
