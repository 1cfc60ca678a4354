"""The folder of a run: its record (run.json) and the rules by which it may be resumed."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import ValidationError

from unfused_ray import storage
from unfused_ray.config import DistillConfig, PretrainConfig, TrainingConfig, differences, explain, within
from unfused_ray.runs.status import Status

logger = logging.getLogger(__name__)

# What a run leaves in its folder, beside run.json, status.json and checkpoints/.
HISTORY = "history.json"
DIVERGED = "diverged.json"
ASSIGNMENTS = "assignments"
PSEUDO_LABELS = "pseudo-labels"

# Settings that may have another value when a run is taken up again. Data and teacher are compared by checksum.
RESUMABLE_SETTINGS = (
    *("epochs", "stop_after", "runtime", "checkpoint", "health", "tracking", "name", "output"),
    *("data", "teacher", "labels_of", "init_from", "fork"),
)
KEPT_SETTINGS = ("runtime.precision", "runtime.compile_backend")
"""Exceptions to them."""

CONFIGS: Mapping[str, type[PretrainConfig | DistillConfig]] = {
    config.stage: config for config in (PretrainConfig, DistillConfig)
}
"""By the stage of a run's record."""


class ConfigurationChangedError(ValueError):
    """A run was started with other settings than it is to be resumed with."""


class Run:
    """One run's folder."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def open(
        self, config: TrainingConfig, facts: Mapping[str, Any], environment: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Create the run, or check that it may be resumed with these settings.

        A run that has no checkpoint yet takes any settings: with other ones it begins anew.

        Args:
            config: its full configuration.
            facts: what else must not change, such as the data's checksums.
            environment: what the run now runs on.

        Returns:
            The record of the run: ``id``, ``created`` (seconds since 1970), ``stage``, ``config``, ``facts``,
            ``environment``.

        Raises:
            ConfigurationChangedError: settings differ that would change the result.
        """
        path = storage.join(self.uri, "run.json")
        new: dict[str, Any] = {
            "id": uuid.uuid4().hex,
            "created": time.time(),
            "stage": config.stage,
            "config": config.model_dump(mode="json"),
            "facts": dict(facts),
            "environment": dict(environment or {}),
        }
        # Here: with it comes torch, which the coordinator, an actor of its own that knows of runs, need not wait for.
        from unfused_ray.runs.checkpoints import CheckpointStore

        changes = self.changes(config, facts)
        if not storage.exists(path) or (changes and not CheckpointStore(self.uri, keep=1).committed()):
            for folder in (ASSIGNMENTS, PSEUDO_LABELS):
                storage.delete(storage.join(self.uri, folder))
            storage.write_bytes(path, json.dumps(new, indent=1).encode())
            return new
        if changes:
            raise ConfigurationChangedError(
                f"{self.uri} was started with other settings:\n  " + "\n  ".join(changes) + "\nGive the settings of "
                "the run, another --output, or branch from its newest checkpoint: --fork "
                f"{self.uri} --output <new folder>"
            )
        record = {**self.record(), "config": new["config"], "environment": new["environment"]}
        storage.write_bytes(path, json.dumps(record, indent=1).encode())
        return record

    def changes(self, config: TrainingConfig, facts: Mapping[str, Any]) -> list[str]:
        """Settings and facts, a line each, that are not those of the run and would change its result."""
        if not storage.exists(storage.join(self.uri, "run.json")):
            return []
        old, new = self.record(), {**config.model_dump(mode="json"), **facts}
        if old["stage"] != config.stage:
            return [f"stage: {old['stage']} → {config.stage}"]
        changes = differences({**old["config"], **old["facts"]}, new)
        return [
            line
            for name, line in changes.items()
            if within(name, KEPT_SETTINGS) or not within(name, RESUMABLE_SETTINGS)
        ]

    def record(self) -> dict[str, Any]:
        """What :meth:`open` has written; settings that did not exist then have their defaults.

        Raises:
            FileNotFoundError: there is no run.
            ValueError: its settings are not those of this version.
        """
        record: dict[str, Any] = storage.read_json(storage.join(self.uri, "run.json"))
        record = {"stage": "pretrain", **record}  # before there were others, it was not written
        try:
            config = CONFIGS[record["stage"]](**record["config"])
        except ValidationError as error:
            raise ValueError(f"{self.uri} was written by another version: {explain(error)}") from error
        return {**record, "config": config.model_dump(mode="json")}

    def write_status(self, status: Status) -> None:
        """Say how the run stands."""
        stamped = {**asdict(status), "updated": time.time()}
        storage.write_bytes(storage.join(self.uri, "status.json"), json.dumps(stamped).encode())

    def status(self) -> Status | None:
        """How the run stands; None before it was first said."""
        path = storage.join(self.uri, "status.json")
        return Status(**storage.read_json(path)) if storage.exists(path) else None
