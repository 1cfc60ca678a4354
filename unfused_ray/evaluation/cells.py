"""The cells of a table: a system on a task, probed, and kept as a JSON file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from unfused_ray import storage
from unfused_ray.embedding.cache import EmbeddingCache
from unfused_ray.evaluation.probe import Labelled, ProbeResult, linear_probe
from unfused_ray.evaluation.protocol import Protocol
from unfused_ray.evaluation.systems import Features, System
from unfused_ray.evaluation.tasks import Task

FORMAT_VERSION = 3
"""Changes when the same networks, clips and protocol give other results, or a cell says more (3: random networks are
calibrated anew; a cell says how many of its clips were damaged)."""


@dataclass(frozen=True)
class Cell:
    """Predictions of a system for a task's test clips, and how its probes were chosen."""

    correct: np.ndarray
    """(S, T) bool, of the tested clips in the order of their clip_ids."""
    weights: np.ndarray
    """(T,) float64 of the tested clips; all 1 without folds, which all count alike."""
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

    @classmethod
    def joined(cls, cells: Sequence[Cell]) -> Cell:
        """One cell of several systems' cells of a task, which count as the seeds of one."""
        results = [result for cell in cells for result in cell.results]
        correct_SN = np.concatenate([cell.correct for cell in cells])
        return cls(correct_SN, cells[0].weights, results, max(cell.damaged for cell in cells))

    @property
    def converged(self) -> bool:
        """True if all chosen fits did."""
        return all(result["converged"] for result in self.results)

    @property
    def accuracy(self) -> float:
        """Test accuracy, the mean over the seeds and over the folds."""
        return float(np.average(self.correct, axis=1, weights=self.weights).mean())

    @property
    def validation_accuracy(self) -> float:
        """Accuracy of the chosen readout and C on validation clips, the mean over the seeds and over the folds."""
        return float(np.mean([result["validation_accuracy"] for result in self.results]))

    @property
    def confusion(self) -> np.ndarray:
        """(K, K) int64 test clips of all seeds and folds, true class by predicted class."""
        return np.sum([result["scores"]["confusion"] for result in self.results], axis=0)


@dataclass(frozen=True)
class Heard:
    """Vectors of some test clips, as the first network of a system was probed on them: for a map."""

    task: str
    """Name of the task, or of its first fold."""
    readout: str
    vectors: np.ndarray
    """(N, D) float32; damaged clips are left out."""
    class_ids: np.ndarray
    """(N,) int64."""


def read(output: str, task: Task, system: System, protocol: Protocol) -> Cell | None:
    """The cell of a system and a task in an output folder; None where it is to be computed.

    A cell of damaged clips is not read: the cause, such as a file that was away, may be gone.
    """
    path = storage.join(output, task.name, file_name(system.name))
    if not storage.exists(path):
        return None
    written = storage.read_json(path)
    if written["key"] != _key(task, system, protocol) or written["damaged"]:
        return None
    return Cell.of(written["seeds"], task, damaged=0)


def compute(
    task: Task, system: System, protocol: Protocol, cache: EmbeddingCache, num_heard: int
) -> tuple[Cell, Heard]:
    """Probe a system on a task; at most ``num_heard`` test clips are heard."""
    results: list[ProbeResult] = []
    heard: list[Heard] = []
    for round_ in task.rounds:
        labelled = Labelled(round_.class_ids, round_.splits, round_.groups, len(round_.class_names))
        for features in system.features(round_, protocol.config, cache):
            results.append(linear_probe(features, labelled, protocol.config.probe))
            if not heard:
                heard.append(_hear(round_, features, results[0].readout, num_heard))
    damaged = max(result.num_damaged for result in results)
    return Cell.of([result.to_json() for result in results], task, damaged), heard[0]


def write(output: str, task: Task, system: System, protocol: Protocol, cell: Cell) -> None:
    """Keep a cell in an output folder."""
    content = {
        "key": _key(task, system, protocol),
        "task": task.name,
        "row": system.name,
        "classes": task.class_names,
        "damaged": cell.damaged,
        "seeds": cell.results,
    }
    path = storage.join(output, task.name, file_name(system.name))
    storage.write_json(path, content, FORMAT_VERSION)


def file_stem(system: str) -> str:
    """Beginning of the names of a system's files."""
    return system.replace(" ", "-")


def file_name(system: str) -> str:
    """Name of a cell's file in the folder of its task."""
    return f"{file_stem(system)}.json"


def _hear(task: Task, features: Features, readout: str, num_heard: int) -> Heard:
    test = np.flatnonzero(task.splits == "test")[:num_heard]
    vectors_ND = features[readout][test]
    whole = np.isfinite(vectors_ND).all(axis=1)
    return Heard(task.name, readout, vectors_ND[whole], task.class_ids[test][whole])


def _key(task: Task, system: System, protocol: Protocol) -> str:
    """Changes when the cell's content would."""
    networks = " ".join(system.identity(round_) for round_ in task.rounds)
    return storage.sha256(f"{FORMAT_VERSION} {networks} {task.index.checksums} {protocol.sha256}".encode())
