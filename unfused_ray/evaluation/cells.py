"""One cell of a table: a row on a task, probed, written, and drawn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from unfused_ray import storage
from unfused_ray.embedding.cache import EmbeddingCache
from unfused_ray.evaluation.drawings import draw_confusion
from unfused_ray.evaluation.figures import draw_map
from unfused_ray.evaluation.pictures import by_class, project, save
from unfused_ray.evaluation.probe import Labelled, ProbeResult, linear_probe
from unfused_ray.evaluation.protocol import Protocol
from unfused_ray.evaluation.systems import Features, System
from unfused_ray.evaluation.tasks import Task

FORMAT_VERSION = 1
MAX_POINTS = 2000
"""Clips of a map."""


@dataclass(frozen=True)
class Cell:
    """What a row reached on a task's test clips, a result a seed."""

    correct: np.ndarray
    """(S, N) bool, of the test clips in the order of their clip_ids."""
    results: list[dict[str, Any]]
    """One a seed, as written."""

    @property
    def accuracy(self) -> float:
        """Test accuracy, the mean over the seeds."""
        return float(self.correct.mean())


def fill(output: str, task: Task, system: System, protocol: Protocol, cache: EmbeddingCache) -> Cell:
    """The cell of a row and a task: read from the output folder, or probed and written there.

    Beside ``<task>/<row>.json`` a picture of the confusion matrix, of all seeds together, and for trained models a map
    of the test clips.
    """
    folder, name = storage.join(output, task.name), system.name.replace(" ", "-")
    path = storage.join(folder, f"{name}.json")
    true_N = task.class_ids[task.splits == "test"]
    identity = f"{FORMAT_VERSION} {system.identity(task)} {task.index.checksums} {protocol.sha256}"
    key = storage.sha256(identity.encode())
    if storage.exists(path):
        written = json.loads(storage.read_bytes(path))
        if written["key"] == key:
            return _cell(written["seeds"], true_N)
    labelled = Labelled(task.class_ids, task.splits, task.groups, len(task.class_names))
    results: list[ProbeResult] = []
    for features in system.features(task, protocol.config, cache):
        results.append(linear_probe(features, labelled, protocol.config.probe))
        if system.has_picture:
            _draw_map(storage.join(folder, f"{name}-map.png"), task, system, features, results[-1])
    confusion_KK = np.sum([result.scores.confusion for result in results], axis=0)
    title = f"{system.name} on {task.name}: {_accuracy(results):.1%} of {len(true_N)} test clips"
    save(draw_confusion(title, confusion_KK, task.class_names), storage.join(folder, f"{name}-confusion.png"))
    seeds = [result.to_json() for result in results]
    content = {"key": key, "task": task.name, "row": system.name, "classes": task.class_names, "seeds": seeds}
    storage.write_bytes(path, json.dumps(content, indent=1).encode())
    return _cell(seeds, true_N)


def _cell(seeds: list[dict[str, Any]], true_N: np.ndarray) -> Cell:
    return Cell(np.stack([np.array(seed["predictions"]) == true_N for seed in seeds]), seeds)


def _accuracy(results: list[ProbeResult]) -> float:
    return float(np.mean([result.test_accuracy for result in results]))


def _draw_map(uri: str, task: Task, system: System, features: Features, result: ProbeResult) -> None:
    test = np.flatnonzero(task.splits == "test")[:MAX_POINTS]
    vectors_ND = features[result.readout][test]
    whole = np.isfinite(vectors_ND).all(axis=1)
    title = f"{whole.sum():,} test clips of {task.name}, as {system.name} hears them ({result.readout}; t-SNE)"
    classes = by_class("by class", task.class_ids[test][whole], task.class_names)
    save(draw_map(title, project(vectors_ND[whole]), [classes]), uri)
