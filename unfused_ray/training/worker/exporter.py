"""Exports a run's network: that of its last epoch, or the best one that was watched."""

from __future__ import annotations

from typing import Any

from unfused_ray import storage
from unfused_ray.config import TrainingConfig
from unfused_ray.data.shards.format import Statistics
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.models.export import find_export, load_encoder, read_description, save_encoder
from unfused_ray.runs.run import BEST
from unfused_ray.runs.watched import Look, task_names


class Exporter:
    """Exports of one run; its first worker writes them.

    Args:
        config: settings of the run.
        run_uri: folder of the run.
        statistics: statistics of the log-mels that the network has learnt from.
        method: name of the method.
    """

    def __init__(self, config: TrainingConfig, run_uri: str, statistics: Statistics, method: str) -> None:
        self._config, self._run_uri, self._statistics, self._method = config, run_uri, statistics, method
        self._best_uri = storage.join(run_uri, BEST)

    def keep_best(self, look: Look, encoder: AudioNTT2020) -> None:
        """Keep a watched network, unless an earlier one was as good by the same measure on the same tasks."""
        seen = self._seen(look)
        kept = read_description(self._best_uri)["extra"]["watched"] if find_export(self._best_uri) else {}
        is_comparable = all(kept.get(name) == seen[name] for name in ("measure", "tasks", "clips"))
        if not is_comparable or look.accuracy > kept["accuracy"]:
            self._write(self._best_uri, encoder, {"epochs": look.epoch, "watched": seen})

    def export(self, encoder: AudioNTT2020, epochs: int, best: Look | None) -> str:
        """Write the export of a run that ends after ``epochs`` epochs.

        Args:
            encoder: encoder of the last epoch.
            epochs: number of epochs that the run has done.
            best: best look of the run; None if there was none.

        Returns:
            A message naming the network exported instead, if the best look's network is asked for but missing; else ''.
        """
        uri, run = storage.join(self._run_uri, self._config.export), {"run_epochs": epochs}
        asked = self._config.watch.export == "best"
        if not asked or find_export(self._best_uri) is None:
            self._write(uri, encoder, {"epochs": epochs, **run})
            return "watch.export=best: no network was looked at, the last one is exported" if asked else ""
        kept = load_encoder(self._best_uri)
        self._write(uri, kept.encoder, {**kept.details, **run})
        if best is None or kept.details["epochs"] == best.epoch:
            return ""
        return (
            f"watch.export=best: the network of the best look, after epoch {best.epoch}, was not kept; that after "
            f"epoch {kept.details['epochs']} is exported"
        )

    def _seen(self, look: Look) -> dict[str, Any]:
        watch = self._config.watch
        accuracies = {"accuracy": look.accuracy, "random": look.random}
        return {"measure": watch.measure, "tasks": task_names(watch), "clips": watch.clips, **accuracies}

    def _write(self, uri: str, encoder: AudioNTT2020, details: dict[str, Any]) -> None:
        config, statistics = self._config, self._statistics
        known = {"method": self._method, "config": config.model_dump(mode="json")}
        save_encoder(uri, encoder, config.front_end, config.crop, statistics.mean, statistics.std, {**details, **known})
