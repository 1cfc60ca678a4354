"""What a run tells while it is on: figures of an epoch to the history, signs of life to the coordinator."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unfused_ray.training.coordinator import Coordinator, Progress, RemoteCoordinator
from unfused_ray.training.worker.epoch_sums import EpochSums, means

REPORT_SECONDS = 1.0


class Journal:
    """One worker's figures; those of rank 0 are told.

    Args:
        coordinator: who is told.
        rank: of the worker.
        num_steps: global batches of the whole run.
    """

    def __init__(self, coordinator: Coordinator | RemoteCoordinator, rank: int, num_steps: int) -> None:
        self._coordinator, self._rank, self._num_steps = coordinator, rank, num_steps
        self.history: list[dict[str, float]] = []
        """One entry a finished epoch: mean loss and terms, seconds by what they were spent on, health of the labels."""
        self.sums = EpochSums()
        """Of the epoch that is on."""
        self.asked_to_stop = False
        """Whether the coordinator's answer was that the run should stop."""
        self._last_report = time.perf_counter()

    def load(self, details: Mapping[str, Any], in_epoch: bool) -> None:
        """Go on from what a checkpoint says; rank 0 goes on with the sums of all."""
        self.history = details["history"]
        if in_epoch and self._rank == 0:
            self.sums = EpochSums(**details["sums"])

    @property
    def damaged_clips(self) -> int:
        """How often a clip did not count because it was damaged, over the finished epochs."""
        return int(sum(entry["damaged_clips"] for entry in self.history))

    @property
    def collapsed_epochs(self) -> list[int]:
        """Finished epochs with signs of a collapse."""
        return [int(entry["epoch"]) for entry in self.history if entry.get("collapse_signs")]

    def report(self, phase: str, step: int, figures: Mapping[str, float | Tensor], now: bool = False) -> None:
        """A sign of life of rank 0, at most once a second unless it is wanted ``now``.

        Args:
            phase: what is being done.
            step: global batches done since the start of the run.
            figures: to show; while training, to track too.
            now: whether to tell it although it is not a second since the last.
        """
        if self._rank != 0 or not (now or time.perf_counter() - self._last_report > REPORT_SECONDS):
            return
        self._last_report = time.perf_counter()
        values = {name: float(value) for name, value in figures.items()}
        progress = Progress(phase, step, self._num_steps, values, self.damaged_clips)
        answer = self._coordinator.report(progress, values if phase == "training" else None)
        self.asked_to_stop = self.asked_to_stop or bool(answer)

    def end_epoch(
        self, epoch: int, totals: Mapping[str, float], health: Mapping[str, float], learning_rate: float
    ) -> dict[str, float]:
        """Add an epoch to the history; returns its figures without its health.

        Args:
            epoch: that has ended.
            totals: its sums over all workers.
            health: of its labels, or of its embeddings where there are none.
            learning_rate: of its last step.
        """
        seconds = self.sums.seconds
        figures = {name: float(value) for name, value in means(totals).items()}
        figures |= {f"seconds_{name}": value for name, value in seconds.items()}
        figures |= {"clips_per_second": totals["clips"] / seconds["train"], "damaged_clips": totals["damaged_clips"]}
        figures["learning_rate"] = learning_rate
        self.history.append({"epoch": float(epoch), **figures, **health})
        self.sums = EpochSums()
        return figures
