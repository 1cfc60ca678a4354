"""Scores on labelled clips, every few epochs, the network that a run would export now."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from unfused_ray.config import TrainingConfig
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.runs.watched import (
    best_look,
    has_ended_early,
    is_regular,
    judged_epochs,
    looks,
    names,
    regular_epochs,
    task_names,
)
from unfused_ray.training.worker.collectives import Collectives
from unfused_ray.training.worker.exporter import Exporter
from unfused_ray.training.worker.reporter import Reporter


class Watcher:
    """Watches a run on its first worker, which sends the scores to the others; training is not changed by it.

    A look runs in the training's own process, on its device, between two epochs. A separate process of lowest priority
    beside the training's threads would delay them for longer (docs/decisions/30-looks-take-turns.md).

    Args:
        config: settings of the run.
        collectives: collectives of the worker group.
        device: device of this worker.
        reporter: holds the looks in its history, and shows the newest.
        exporter: keeps the best network.
    """

    def __init__(
        self,
        config: TrainingConfig,
        collectives: Collectives,
        device: torch.device,
        reporter: Reporter,
        exporter: Exporter,
    ) -> None:
        self._config, self._collectives, self._device = config, collectives, device
        self._reporter, self._exporter = reporter, exporter
        self._names = names(task_names(config.watch))
        self._watch: Callable[[AudioNTT2020], list[float]] | None = None
        for newest in looks(reporter.history, config.watch)[-1:]:
            reporter.shown = {"watched": newest.accuracy, "random": newest.random}

    def is_due(self, epoch: int) -> bool:
        """Return True if the run is to be looked at after an epoch."""
        watch = self._config.watch
        return bool(watch.data) and (is_regular(epoch, watch) or epoch + 1 == self._config.last_epoch)

    @property
    def has_ended_early(self) -> bool:
        """True if the looks end the run early; the same on all workers."""
        return has_ended_early(self._reporter.history, self._config.watch)

    def early_end(self, epoch: int) -> str:
        """Return the reason for an early end after ``epoch`` epochs; '' if there was none."""
        watch = self._config.watch
        best = best_look(regular_epochs(self._reporter.history, watch), watch)
        if best is None or not self.has_ended_early or epoch >= self._config.last_epoch:
            return ""
        return (
            f"ended early: {watch.patience} looks in a row were no better than that after epoch {best.epoch}, with a "
            f"{watch.measure} of {best.accuracy:.1%} (random networks {best.random:.1%})"
        )

    def look(self, epoch: int, network: Callable[[], AudioNTT2020]) -> dict[str, float]:
        """Return accuracies by their names in the history; empty if scoring failed. All workers call it together.

        Args:
            epoch: epoch that has ended.
            network: returns the network to look at.
        """
        values = [math.nan] * len(self._names)
        if self._collectives.rank == 0:
            try:
                values = self._scores(network())
            except (OSError, ValueError, RuntimeError) as error:
                self._reporter.note(f"not watched after epoch {epoch + 1}: {error}")
        everyone = self._collectives.gather(torch.tensor(values, dtype=torch.float64))
        seen = dict(zip(self._names, everyone[: len(self._names)].tolist(), strict=True))  # rank 0's come first
        if any(map(math.isnan, seen.values())):
            return {}
        (newest,) = looks([{"epoch": epoch, **seen}], self._config.watch)
        self._reporter.shown = {"watched": newest.accuracy, "random": newest.random}
        is_judged = bool(judged_epochs([{"epoch": epoch}], self._config.watch, self._config.epochs))
        if is_judged and self._config.watch.export == "best" and self._collectives.rank == 0:
            self._exporter.keep_best(newest, network())
        return seen

    def _scores(self, encoder: AudioNTT2020) -> list[float]:
        """Return the scores of the network, then of random ones, in the order of the names."""
        if self._watch is None:
            self._watch = self._begin(encoder)
        return self._watch(encoder)

    def _begin(self, encoder: AudioNTT2020) -> Callable[[AudioNTT2020], list[float]]:
        """Read the clips and score the random networks, once; return a function that gives all scores."""
        from unfused_ray.evaluation.watch import Watch  # here: only a watched run needs scikit-learn
        from unfused_ray.evaluation.watched_clips import watched_tasks

        front_end = self._config.front_end
        watch = Watch(watched_tasks(self._config.watch, front_end), front_end, self._device)
        random = [value for of_task in watch.look_at_random(encoder.config).values() for value in of_task.values()]
        return lambda seen: [*(v for of_task in watch.look(seen).values() for v in of_task.values()), *random]
