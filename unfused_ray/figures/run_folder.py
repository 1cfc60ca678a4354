"""What a training run left in its folder, read back for pictures and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from unfused_ray import storage
from unfused_ray.clustering.assignment import MANIFEST, Assignment, read_assignment
from unfused_ray.config import DistillConfig, PretrainConfig
from unfused_ray.runs.run import ASSIGNMENTS, CONFIGS, PSEUDO_LABELS, Run

PICTURES = "pictures"


class RunFolder:
    """The records of one run.

    Args:
        uri: folder of the run.

    Raises:
        FileNotFoundError: there is no run.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        path = storage.join(uri, "run.json")
        if not storage.exists(path):
            raise FileNotFoundError(f"{uri} holds no run.json: it is not the folder of a run")
        self.record: dict[str, Any] = Run(uri).record()

    @cached_property
    def config(self) -> PretrainConfig | DistillConfig:
        """The configuration it was last started with."""
        return CONFIGS[self.record["stage"]](**self.record["config"])

    @property
    def num_clips(self) -> int:
        """Clips of its data."""
        return self.record["facts"]["num_clips"]

    @cached_property
    def history(self) -> list[dict[str, float]]:
        """One entry a finished epoch; empty before the first."""
        return Run(self.uri).history()

    @property
    def is_labelled(self) -> bool:
        """Whether there is an assignment."""
        return bool(self._assignments)

    @cached_property
    def assignment(self) -> Assignment:
        """The newest assignment; of a distillation, its pseudo-labels.

        Raises:
            FileNotFoundError: nothing was clustered yet.
        """
        if not self._assignments:
            raise FileNotFoundError(f"{self.uri} holds no assignment: no epoch has begun")
        return read_assignment(self._assignments[-1])

    @property
    def _assignments(self) -> list[str]:
        """Folders of the assignments, the newest last; without one that is being written, or never was to its end."""
        if isinstance(self.config, DistillConfig):
            folders = [storage.join(self.uri, PSEUDO_LABELS)]
        else:
            folders = storage.list_folders(storage.join(self.uri, ASSIGNMENTS))
        return [folder for folder in folders if storage.exists(storage.join(folder, MANIFEST))]


def curves(history: Sequence[Mapping[str, float]], figure: str) -> dict[str, tuple[list[int], list[float]]]:
    """A figure over the epochs: by head ('' where it is not a head's), the epochs that have it, and its values.

    A figure of one of several heads is recorded as ``head0/<figure>``.
    """
    found: dict[str, tuple[list[int], list[float]]] = {}
    for entry in history:
        for key, value in entry.items():
            head, _, name = key.rpartition("/")
            if name == figure:
                epochs, values = found.setdefault(head, ([], []))
                epochs.append(int(entry["epoch"]))
                values.append(value)
    return found
