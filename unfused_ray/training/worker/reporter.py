"""Reports of a worker: metrics of steps to the coordinator, metrics of epochs to the history."""

from __future__ import annotations

import time
from collections.abc import Mapping

from torch import Tensor

from unfused_ray.training.coordinator import CoordinatorClient, RunProgress
from unfused_ray.training.worker.epoch_sums import EpochSums, means

REPORT_SECONDS = 1.0
"""Seconds between two reports."""


class Reporter:
    """Collects a worker's metrics; rank 0 reports them.

    Args:
        coordinator: coordinator of the run.
        rank: rank of the worker.
        num_steps: number of global batches that are done when the run ends, by ``stop_after`` or ``epochs``.
        history: metrics of the finished epochs.
    """

    def __init__(
        self, coordinator: CoordinatorClient, rank: int, num_steps: int, history: list[dict[str, float]]
    ) -> None:
        self._coordinator, self._rank, self._num_steps = coordinator, rank, num_steps
        self.history = history
        """One entry per finished epoch: mean loss and terms, seconds by purpose, health of the labels."""
        self.asked_to_stop = False
        """True once the coordinator has asked the run to stop."""
        self.arithmetic = ""
        """Number format and device, as text for people."""
        self.shown: dict[str, float] = {}
        """Metrics that are shown with every report, but not tracked."""
        self._last_report = time.perf_counter()

    @property
    def damaged_clips(self) -> int:
        """Number of times that a damaged clip was left out, over the finished epochs."""
        return int(sum(entry["damaged_clips"] for entry in self.history))

    @property
    def collapsed_epochs(self) -> list[int]:
        """Finished epochs with signs of a collapse, counted from 1."""
        return [int(entry["epoch"]) + 1 for entry in self.history if entry.get("collapse_signs")]

    def report(self, phase: str, step: int, metrics: Mapping[str, float | Tensor], now: bool = False) -> None:
        """Report progress on rank 0, at most once a second.

        Args:
            phase: phase of the run.
            step: number of global batches done since the start of the run.
            metrics: metrics to show; in the phase "training" they are also tracked.
            now: True to report before a second has passed.
        """
        if self._rank != 0 or not (now or time.perf_counter() - self._last_report > REPORT_SECONDS):
            return
        self._last_report = time.perf_counter()
        values = {name: float(value) for name, value in metrics.items()}
        figures = values | self.shown
        progress = RunProgress(phase, step, self._num_steps, figures, self.damaged_clips, self.arithmetic)
        answer = self._coordinator.report(progress, values if phase == "training" else None)
        self.asked_to_stop = self.asked_to_stop or bool(answer)

    def note(self, text: str) -> None:
        """Send a message for the people who watch the run."""
        self._coordinator.note(text)

    def end_epoch(
        self,
        epoch: int,
        totals: Mapping[str, float],
        seconds: Mapping[str, float],
        health: Mapping[str, float],
        learning_rate: float,
    ) -> dict[str, float]:
        """Add an epoch to the history; return its metrics without its health.

        Args:
            epoch: epoch that has ended.
            totals: sums of the epoch over all workers.
            seconds: seconds of the epoch, by purpose.
            health: health of the epoch's labels, or of its embeddings if there are no labels.
            learning_rate: learning rate of its last step.
        """
        metrics = {name: float(value) for name, value in means(totals).items()}
        metrics |= {f"seconds_{name}": value for name, value in seconds.items()}
        metrics |= {"clips_per_second": totals["clips"] / seconds["train"], "damaged_clips": totals["damaged_clips"]}
        metrics["learning_rate"] = learning_rate
        self.history.append({"epoch": float(epoch), **metrics, **health})
        return metrics

    def report_step(self, step: int, clips: int, sums: EpochSums) -> None:
        """Report the means of an epoch that has trained on ``clips`` clips of all workers so far."""
        seconds, waited = sums.seconds.get("train", 0.0), sums.seconds.get("wait", 0.0)
        rates = {"clips_per_second": clips / seconds, "wait_share": waited / seconds} if seconds else {}
        self.report("training", step, {**means(sums.values), **rates})
