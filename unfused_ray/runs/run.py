"""The folder of a run: its record (run.json) and the rules by which it may be resumed."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pydantic import ValidationError

from unfused_ray import storage
from unfused_ray.config import DistillConfig, PretrainConfig, TrainingConfig, differences, explain, idle_fields, within
from unfused_ray.data.parts.ledger import refuse_occupied
from unfused_ray.runs.checkpoints import CheckpointStore
from unfused_ray.runs.environment import resumed
from unfused_ray.runs.files import read_file, write_file
from unfused_ray.runs.status import Status

# Files and folders of a run, besides checkpoints/.
RECORD = "run.json"
_STATUS = "status.json"
_HISTORY = "history.json"
DIVERGED = "diverged.json"
ASSIGNMENTS = "assignments"
PSEUDO_LABELS = "pseudo-labels"
BEST = "best"
"""Folder of the best network that was watched, if it is to be exported."""
_BEGUN_ANEW = (ASSIGNMENTS, PSEUDO_LABELS, BEST, DIVERGED)
"""Files and folders that are deleted when a run begins anew."""

# Settings that may differ when a run is resumed. Data and teacher are compared by checksum; the run or export that the
# run begins with is compared by identity.
RESUMABLE_SETTINGS = (
    *("epochs", "stop_after", "runtime", "checkpoint", "health", "watch", "tracking", "name", "output"),
    *("data", "teacher", "labels_of", "init_from", "fork"),
)
KEPT_SETTINGS = ("runtime.precision", "runtime.compile_backend")
"""Exceptions to RESUMABLE_SETTINGS."""
_MAY_END_OTHERWISE = {"diverged": ("epochs", "stop_after", "runtime"), "collapsed": ("health",)}
"""Settings that may differ on a resume and could change the end of a run, by the state in which it ended."""

CONFIGS: Mapping[str, type[PretrainConfig | DistillConfig]] = {
    config.stage: config for config in (PretrainConfig, DistillConfig)
}
"""Configuration classes by the stage that a run's record names."""


class ConfigurationChangedError(ValueError):
    """Settings or data differ from those that the run was started with."""


def is_run(uri: str) -> bool:
    """Return True if ``uri`` is the folder of a run that has begun."""
    return storage.exists(storage.join(uri, RECORD))


class Run:
    """The folder of one run."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def open(
        self, config: TrainingConfig, facts: Mapping[str, Any], environment: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Create the run, or check that it may be resumed with these settings.

        If the settings differ and the run has no checkpoint yet, the run begins anew.

        Args:
            config: the run's full configuration.
            facts: facts that must not change either, such as the data's checksums.
            environment: versions and machine of this start.

        Returns:
            The record of the run: ``id``, ``created`` (seconds since 1970), ``stage``, ``config``, ``facts``,
            ``environment`` of this start and, for a resumed run, ``earlier_environments``.

        Raises:
            ConfigurationChangedError: settings differ that would change the result.
            ValueError: another version of unfused-ray wrote the run, or as in :meth:`refuse_other_content`.
        """
        self.refuse_other_content()
        new: dict[str, Any] = {
            "id": uuid.uuid4().hex,
            "created": time.time(),
            "stage": config.stage,
            "config": config.model_dump(mode="json"),
            "facts": dict(facts),
            "environment": dict(environment or {}),
        }
        changes = self.changes(config, facts)
        if not is_run(self.uri) or (changes and not CheckpointStore(self.uri).committed()):
            for name in _BEGUN_ANEW:
                storage.delete(storage.join(self.uri, name))
            write_file(self.uri, RECORD, new)
            return new
        if changes:
            raise ConfigurationChangedError(
                f"{self.uri} was started with other settings:\n  " + "\n  ".join(changes) + "\nGive the settings of "
                "the run, another --output, or branch from its newest checkpoint: --fork "
                f"{self.uri} --output <new folder>"
            )
        old, started = self.record(), {"environment": new["environment"]}
        has_trained = bool(CheckpointStore(self.uri).committed())
        if not has_trained:
            storage.delete(storage.join(self.uri, BEST))  # it comes from looks that the run repeats
        if has_trained or self._has(PSEUDO_LABELS):
            started = resumed(self.uri, old, new["environment"])
        record = {**old, "config": new["config"], **started}
        write_file(self.uri, RECORD, record)
        return record

    def changes(self, config: TrainingConfig, facts: Mapping[str, Any]) -> list[str]:
        """Return the settings and facts that differ from the run's and would change its result, one per line."""
        if not is_run(self.uri):
            return []
        old, new = self.record(), {**config.model_dump(mode="json"), **facts}
        if old["stage"] != config.stage:
            return [f"stage: {old['stage']} → {config.stage}"]
        changes = differences({**old["config"], **old["facts"]}, new)
        idle = {name for name, _, _ in idle_fields(CONFIGS[old["stage"]].model_validate(old["config"]))}
        return [
            _of_origin(name, old["config"], new) or line
            for name, line in changes.items()
            if within(name, KEPT_SETTINGS) or not within(name, RESUMABLE_SETTINGS)
            if name not in idle  # it had no effect in a run begun before such settings were refused
        ]

    def refuse_other_content(self) -> None:
        """Refuse a folder that is no run's but another job's, or holds what a run that begins anew would delete.

        Raises:
            ValueError: names what the folder holds.
        """
        if is_run(self.uri):
            return
        refuse_occupied(self.uri)
        if found := [name for name in _BEGUN_ANEW if self._has(name)]:
            raise ValueError(
                f"output={self.uri} holds {' and '.join(found)}, but no {RECORD}: it is not the folder of a run, and a "
                "run that begins there would delete them. Give another --output"
            )

    def refuse_repetition(self, config: TrainingConfig, facts: Mapping[str, Any]) -> None:
        """Refuse to resume a diverged or collapsed run without a change: it would end at the same place again.

        Args:
            config, facts: as in :meth:`open`, which refuses settings that must not differ.

        Raises:
            ValueError: the run would repeat itself; names the settings that may be changed.
        """
        status = self.status()
        is_over = status is not None and status.state in _MAY_END_OTHERWISE and self._has(RECORD)
        if status is None or not is_over or self.changes(config, facts):
            return
        changed = differences(self.record()["config"], config.model_dump(mode="json"))
        if any(within(name, _MAY_END_OTHERWISE[status.state]) for name in changed):
            return
        other = "or begin anew with other settings"
        if CheckpointStore(self.uri).committed():
            other = f"or branch from its newest checkpoint with other settings: --fork {self.uri} --output <new folder>"
        if status.state == "collapsed":
            raise ValueError(
                f"{self.uri} has ended after epoch {status.epoch} by health.on_collapse={config.health.on_collapse}: "
                f"{status.message}. Give --health.on-collapse warn or other limits to resume it, {other}"
            )
        if self._has(DIVERGED):
            raise ValueError(
                f"{self.uri} has diverged in epoch {status.epoch + 1} before step {status.step}, and would again with "
                f"the same settings. Delete {storage.join(self.uri, DIVERGED)} if the machine was to blame, {other}, "
                "such as a lower optimizer.lr"
            )

    def record(self) -> dict[str, Any]:
        """Read the record that :meth:`open` wrote.

        A setting that is newer than the run takes its default, which is how the older version behaved.

        Raises:
            FileNotFoundError: there is no run.
            ValueError: it has a setting that this version does not know.
        """
        record = read_file(self.uri, RECORD)
        try:
            config = CONFIGS[record["stage"]].model_validate(record["config"])
        except ValidationError as error:
            raise ValueError(f"{self.uri} has settings of another version:\n{explain(error)}") from error
        return {**record, "config": config.model_dump(mode="json")}

    def write_status(self, status: Status) -> None:
        """Write the run's status, with the current time."""
        write_file(self.uri, _STATUS, {**asdict(status), "updated": time.time()})

    def status(self) -> Status | None:
        """Return the status that was written last; None before the first."""
        return Status(**read_file(self.uri, _STATUS)) if self._has(_STATUS) else None

    def write_history(self, epochs: Sequence[Mapping[str, float]]) -> None:
        """Write the metrics of all finished epochs."""
        write_file(self.uri, _HISTORY, {"epochs": epochs})

    def history(self) -> list[dict[str, float]]:
        """Return the metrics of every finished epoch; empty before the first."""
        return read_file(self.uri, _HISTORY)["epochs"] if self._has(_HISTORY) else []

    def _has(self, file: str) -> bool:
        return storage.exists(storage.join(self.uri, file))


def _of_origin(fact: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Describe a change of the run or export that a run begins with; "" for any other change."""
    field, identity, _ = fact.partition("_identity")
    if not identity:
        return ""
    began, asked = (values[field] or "none" for values in (old, new))
    return (
        f"{field}: the run began with {began}, not with {asked}"
        if asked != "none"
        else f"{field}: the run began with {began}"
    )
