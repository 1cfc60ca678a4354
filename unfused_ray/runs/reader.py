"""Reads the files that a training run left in its folder: settings, history and the newest assignment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from unfused_ray import storage
from unfused_ray.clustering.assignment import MANIFEST, Assignment, read_assignment
from unfused_ray.config import DistillConfig, PretrainConfig
from unfused_ray.runs.checkpoints import CheckpointStore
from unfused_ray.runs.environment import earlier_in_words
from unfused_ray.runs.run import ASSIGNMENTS, CONFIGS, PSEUDO_LABELS, RECORD, Run, is_run
from unfused_ray.runs.status import Status

PICTURES = "pictures"
"""Folder of the pictures within the folder of a run."""


class RunReader(Run):
    """A run for pictures, pages and tables; each of its files is read once, at its first use.

    Args:
        uri: folder of the run.

    Raises:
        FileNotFoundError: there is no run.
        ValueError: another version wrote it.
    """

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        if not is_run(uri):
            raise FileNotFoundError(f"{uri} holds no {RECORD}: it is not the folder of a run")
        record = self.record()
        self.id: str = record["id"]
        self.created: float = record["created"]
        """Time at which the run was created, in seconds since 1970."""
        self.config: PretrainConfig | DistillConfig = CONFIGS[record["stage"]](**record["config"])
        """The configuration of the run's last start."""
        self.facts: Mapping[str, Any] = record["facts"]
        self.environment: Mapping[str, str] = record["environment"]
        """The environment of the run's last start."""
        self.earlier = earlier_in_words(record)
        """Differences of earlier starts' environments from the last one, as text; "" if there are none."""

    def status(self) -> Status | None:
        """Return the status at the first reading; None if there was none."""
        return self._status

    @cached_property
    def _status(self) -> Status | None:
        return super().status()

    def history(self) -> list[dict[str, float]]:
        """Return the metrics of the epochs that were finished at the first reading."""
        return self._history

    @cached_property
    def _history(self) -> list[dict[str, float]]:
        return super().history()

    @property
    def num_clips(self) -> int:
        """Number of clips of the run's data."""
        return self.facts["num_clips"]

    @property
    def has_assignment(self) -> bool:
        """True if clips have pseudo-labels."""
        return bool(self._assignments)

    @cached_property
    def assignment(self) -> Assignment:
        """The newest assignment; for a distillation, its pseudo-labels.

        Raises:
            FileNotFoundError: nothing was clustered yet.
        """
        if not self._assignments:
            raise FileNotFoundError(f"{self.uri} holds no assignment: no epoch has begun")
        return read_assignment(self._assignments[-1])

    @cached_property
    def newest_checkpoint(self) -> str:
        """Folder of the newest checkpoint; '' before there is one."""
        committed = CheckpointStore(self.uri).committed()
        return committed[0] if committed else ""

    @cached_property
    def _assignments(self) -> list[str]:
        """Folders of the finished assignments, newest last."""
        if isinstance(self.config, DistillConfig):
            folders = [storage.join(self.uri, PSEUDO_LABELS)]
        else:
            folders = storage.list_folders(storage.join(self.uri, ASSIGNMENTS))
        return [folder for folder in folders if storage.exists(storage.join(folder, MANIFEST))]


def seconds_of(history: Sequence[Mapping[str, float]]) -> float:
    """Return the seconds of all epochs: training (which includes waiting for data), clustering, looks and
    checkpoints."""
    counted = {name for entry in history for name in entry if name.startswith("seconds_")} - {"seconds_wait"}
    return sum(entry.get(name, 0.0) for entry in history for name in counted)


def curves(history: Sequence[Mapping[str, float]], metric: str) -> dict[str, tuple[list[int], list[float]]]:
    """Return the epochs, counted from 1, and the values of a metric, by head; '' for a metric that is not of one head.

    The history counts epochs from 0, and calls the metric of one of several heads ``head0/<metric>``.
    """
    found: dict[str, tuple[list[int], list[float]]] = {}
    for entry in history:
        for key, value in entry.items():
            head, _, name = key.rpartition("/")
            if name == metric:
                epochs, values = found.setdefault(head, ([], []))
                epochs.append(int(entry["epoch"]) + 1)
                values.append(value)
    return found
