"""One cell of a table: a row on a task, probed, written, and drawn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from unfused_ray import storage
from unfused_ray.embedding.cache import EmbeddingCache
from unfused_ray.evaluation.probe import Labelled, ProbeResult, linear_probe
from unfused_ray.evaluation.protocol import Protocol
from unfused_ray.evaluation.systems import Features, System
from unfused_ray.evaluation.tasks import Task
from unfused_ray.figures.evaluation_figures import draw_confusion
from unfused_ray.figures.run_figures import draw_map
from unfused_ray.figures.run_pictures import MAX_POINTS, by_class, project, save

FORMAT_VERSION = 3
"""Changes when the same networks, clips and protocol give other results, or a cell says more (3: random networks are
calibrated anew; a cell says how many of its clips were damaged)."""


@dataclass(frozen=True)
class Cell:
    """What a row reached on a task's test clips, a result a seed."""

    correct: np.ndarray
    """(S, T) bool, of the tested clips in the order of their clip_ids."""
    weights: np.ndarray
    """(T,) float64 of the tested clips; all 1 but of a task with folds, which all count alike."""
    results: list[dict[str, Any]]
    """As written: one a seed; of a task with folds those of its first round, then of its second …"""
    damaged: int
    """Clips of any split without finite features, left out of train and wrong in test: the cell is not read again."""

    @classmethod
    def of(cls, results: list[dict[str, Any]], task: Task, damaged: int) -> Self:
        """The cell of these results on a task."""
        num_seeds = len(results) // len(task.rounds)
        correct_SN = np.zeros((num_seeds, len(task.splits)), bool)
        for number, result in enumerate(results):
            test = task.rounds[number // num_seeds].splits == "test"
            correct_SN[number % num_seeds, test] = np.array(result["predictions"]) == task.class_ids[test]
        return cls(correct_SN[:, task.tested], task.test_weights, results, damaged)

    @property
    def converged(self) -> bool:
        """Whether all chosen fits have."""
        return all(result["converged"] for result in self.results)

    @property
    def accuracy(self) -> float:
        """Test accuracy, the mean over the seeds and over the folds."""
        return float(np.average(self.correct, axis=1, weights=self.weights).mean())

    @property
    def validation_accuracy(self) -> float:
        """That of the readout and C that it chose, the mean over the seeds and over the folds."""
        return float(np.mean([result["validation_accuracy"] for result in self.results]))


def read(output: str, task: Task, system: System, protocol: Protocol) -> Cell | None:
    """The cell of a row and a task as it lies in the output folder; None where it is to be filled.

    A cell of damaged clips is not read: what damaged them, a file that was away, may be over.
    """
    path, *_ = _paths(output, task, system)
    if not storage.exists(path):
        return None
    written = storage.read_json(path)
    if written["key"] != _key(task, system, protocol) or written["damaged"]:
        return None
    return Cell.of(written["seeds"], task, damaged=0)


def fill(output: str, task: Task, system: System, protocol: Protocol, cache: EmbeddingCache) -> Cell:
    """Probe a row on a task, and write the cell.

    Beside ``<task>/<row>.json`` a picture of the confusion matrix, of all seeds and folds together, and a map of the
    test clips (of the first fold, where there are folds) as the row hears them with its first network.
    """
    path, confusion, picture = _paths(output, task, system)
    results: list[ProbeResult] = []
    for round_ in task.rounds:
        labelled = Labelled(round_.class_ids, round_.splits, round_.groups, len(round_.class_names))
        for features in system.features(round_, protocol.config, cache):
            results.append(linear_probe(features, labelled, protocol.config.probe))
            if len(results) == 1:
                _draw_map(picture, round_, system, features, results[-1])
    seeds = [result.to_json() for result in results]
    damaged = max(result.num_damaged for result in results)
    cell = Cell.of(seeds, task, damaged)
    confusion_KK = np.sum([result.scores.confusion for result in results], axis=0)
    num_seeds, num_tested = cell.correct.shape
    title = f"{system.name} on {task.name}: {cell.accuracy:.1%} of {num_tested:,} test clips"
    if num_seeds > 1:
        title += f", each heard by {num_seeds} networks"
    save(draw_confusion(title, confusion_KK, task.class_names), confusion)
    content = {
        "key": _key(task, system, protocol),
        "task": task.name,
        "row": system.name,
        "classes": task.class_names,
        "damaged": damaged,
        "seeds": seeds,
    }
    storage.write_bytes(path, json.dumps(content, indent=1).encode())
    return cell


def file_stem(system: System) -> str:
    """Beginning of the names of a row's files."""
    return system.name.replace(" ", "-")


def file_names(system: System) -> tuple[str, str, str]:
    """A row's files in a task's folder: its cell, the confusion matrix, and the map."""
    stem = file_stem(system)
    return f"{stem}.json", f"{stem}-confusion.png", f"{stem}-map.png"


def _paths(output: str, task: Task, system: System) -> tuple[str, ...]:
    return tuple(storage.join(output, task.name, name) for name in file_names(system))


def _key(task: Task, system: System, protocol: Protocol) -> str:
    """Changes when the cell's content would."""
    networks = " ".join(system.identity(round_) for round_ in task.rounds)
    return storage.sha256(f"{FORMAT_VERSION} {networks} {task.index.checksums} {protocol.sha256}".encode())


def _draw_map(uri: str, task: Task, system: System, features: Features, result: ProbeResult) -> None:
    test = np.flatnonzero(task.splits == "test")[:MAX_POINTS]
    vectors_ND = features[result.readout][test]
    whole = np.isfinite(vectors_ND).all(axis=1)
    if whole.sum() < 2:
        return  # no two points, no distances to show
    layers = {"last": "its last layer", "blocks": "its blocks", "both": "its blocks and last layer"}[result.readout]
    title = f"{whole.sum():,} test clips of {task.name}, as {system.name} hears them ({layers}; t-SNE)"
    classes = by_class("by class", task.class_ids[test][whole], task.class_names)
    save(draw_map(title, project(vectors_ND[whole]), [classes]), uri)
