"""One cell of a table: a row on a task, probed, written, and drawn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from unfused_ray import storage
from unfused_ray.embedding.cache import EmbeddingCache
from unfused_ray.evaluation.drawings import draw_confusion
from unfused_ray.evaluation.figures import draw_map
from unfused_ray.evaluation.pictures import MAX_POINTS, by_class, project, save
from unfused_ray.evaluation.probe import Labelled, ProbeResult, linear_probe
from unfused_ray.evaluation.protocol import Protocol
from unfused_ray.evaluation.systems import Features, System
from unfused_ray.evaluation.tasks import Task

FORMAT_VERSION = 3
"""Changes when the same networks, clips and protocol give other results, or a cell says more (3: random networks are
calibrated anew; a cell says how many of its clips were damaged)."""


@dataclass(frozen=True)
class Cell:
    """What a row reached on a task's test clips, a result a seed."""

    correct: np.ndarray
    """(S, N) bool, of the test clips in the order of their clip_ids."""
    results: list[dict[str, Any]]
    """One a seed, as written."""
    damaged: int
    """Clips of any split without finite features, left out of train and wrong in test: the cell is not read again."""

    @classmethod
    def of(cls, results: list[dict[str, Any]], true_N: np.ndarray, damaged: int) -> Self:
        """The cell of these results, from the true classes of the test clips: (N,) int64."""
        correct = np.stack([np.array(result["predictions"]) == true_N for result in results])
        return cls(correct, results, damaged)

    @property
    def converged(self) -> bool:
        """Whether the chosen fit of every seed has."""
        return all(result["converged"] for result in self.results)

    @property
    def accuracy(self) -> float:
        """Test accuracy, the mean over the seeds."""
        return float(self.correct.mean())


def fill(output: str, task: Task, system: System, protocol: Protocol, cache: EmbeddingCache) -> Cell:
    """The cell of a row and a task: read from the output folder, or probed and written there.

    Beside ``<task>/<row>.json`` a picture of the confusion matrix, of all seeds together, and for trained models a map
    of the test clips. A cell of damaged clips is not read: what damaged them, a file that was away, may be over.
    """
    path, confusion, picture = (storage.join(output, task.name, name) for name in file_names(system))
    true_N = task.class_ids[task.splits == "test"]
    identity = f"{FORMAT_VERSION} {system.identity(task)} {task.index.checksums} {protocol.sha256}"
    key = storage.sha256(identity.encode())
    if storage.exists(path):
        written = json.loads(storage.read_bytes(path))
        if written["key"] == key and not written["damaged"]:
            return Cell.of(written["seeds"], true_N, damaged=0)
    labelled = Labelled(task.class_ids, task.splits, task.groups, len(task.class_names))
    results: list[ProbeResult] = []
    damaged = 0
    for features in system.features(task, protocol.config, cache):
        results.append(linear_probe(features, labelled, protocol.config.probe))
        damaged = max(damaged, _num_damaged(features))
        if system.has_picture:
            _draw_map(picture, task, system, features, results[-1])
    seeds = [result.to_json() for result in results]
    cell = Cell.of(seeds, true_N, damaged)
    confusion_KK = np.sum([result.scores.confusion for result in results], axis=0)
    title = f"{system.name} on {task.name}: {cell.accuracy:.1%} of {len(true_N):,} test clips"
    if len(seeds) > 1:
        title += f", each heard by {len(seeds)} networks"
    save(draw_confusion(title, confusion_KK, task.class_names), confusion)
    content = {
        "key": key,
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
    """A row's files in a task's folder: its cell, the confusion matrix, and the map, which not every row has."""
    stem = file_stem(system)
    return f"{stem}.json", f"{stem}-confusion.png", f"{stem}-map.png"


def _num_damaged(features: Features) -> int:
    """Clips that a readout has no finite features of, as the probe counts them."""
    whole_N = np.logical_and.reduce([np.isfinite(features_ND).all(axis=1) for features_ND in features.values()])
    return int((~whole_N).sum())


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
