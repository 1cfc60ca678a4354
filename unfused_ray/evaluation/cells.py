"""The cells of a table: each is a system probed on a task, stored as a JSON file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Self, get_args

import numpy as np

from unfused_ray import storage
from unfused_ray.config import Measure
from unfused_ray.embedding.cache import EmbeddingCache
from unfused_ray.evaluation.probes.clips import Labelled
from unfused_ray.evaluation.probes.probe import ProbeResult, probe
from unfused_ray.evaluation.protocol import Protocol
from unfused_ray.evaluation.systems import System
from unfused_ray.evaluation.tasks import Task

MEASURES: tuple[Measure, ...] = get_args(Measure)
FORMAT_VERSION = 6
"""Changes when the same networks, clips and protocol give other results, or when a cell holds more (6: a damaged clip
leaves the other clips of few-shot unchanged)."""


@dataclass(frozen=True)
class Cell:
    """Scores of a system on a task's test clips and, before that, on its validation clips."""

    scores: dict[Measure, np.ndarray]
    """(S, T) float64, 0 to 1, scores of the tested clips in the order of their clip_ids, by measure."""
    validation: dict[Measure, np.ndarray]
    """(S, V) float64 scores of the validation clips that no network found damaged, of all folds one after another."""
    validation_clips: np.ndarray
    """(V,) int64 numbers that tell the validation clips of all folds apart."""
    validation_groups: np.ndarray
    """(V,) str, groups of the validation clips."""
    weights: np.ndarray
    """(T,) float64 weights of the tested clips: all 1 without folds; with folds, each fold counts equally."""
    results: list[dict[str, Any]]
    """Results as stored: one per seed; for a task with folds, those of its first round, then of its second …"""
    damaged: int
    """Clips of any split without finite features, left out of train and wrong in test. If there are any, the cell is
    computed again next time."""

    @classmethod
    def of(cls, results: list[dict[str, Any]], task: Task, damaged: int) -> Self:
        """Make the cell of these results on a task."""
        num_seeds = len(results) // len(task.rounds)
        by_round = [results[first : first + num_seeds] for first in range(0, len(results), num_seeds)]
        clips = [[np.array(result["validation"]["clips"], np.int64) for result in of_round] for of_round in by_round]
        scores: dict[Measure, np.ndarray] = {}
        validation: dict[Measure, np.ndarray] = {}
        for measure in MEASURES:
            scores_SN = np.zeros((num_seeds, len(task.splits)))
            for round_, of_round in zip(task.rounds, by_round, strict=True):
                scores_SN[:, round_.splits == "test"] = [result["scores"][measure] for result in of_round]
            scores[measure] = scores_SN[:, task.tested]
            held = [[np.array([r["validation"]["scores"][measure]]) for r in of_round] for of_round in by_round]
            validation[measure] = np.hstack([_stacked(*of_round) for of_round in zip(clips, held, strict=True)])
        kept = [_common(of_round) for of_round in clips]
        groups_V = task.groups[np.concatenate(kept)]
        clips_V = np.concatenate([each + number * len(task.splits) for number, each in enumerate(kept)])
        return cls(scores, validation, clips_V, groups_V, task.test_weights, results, damaged)

    @classmethod
    def joined(cls, cells: Sequence[Cell]) -> Cell:
        """Join several systems' cells on a task, which then count as the seeds of one system."""
        clips = [cell.validation_clips for cell in cells]
        clips_V = _common(clips)
        return cls(
            scores={measure: np.concatenate([cell.scores[measure] for cell in cells]) for measure in MEASURES},
            validation={measure: _stacked(clips, [cell.validation[measure] for cell in cells]) for measure in MEASURES},
            validation_clips=clips_V,
            validation_groups=cells[0].validation_groups[np.isin(clips[0], clips_V)],
            weights=cells[0].weights,
            results=[result for cell in cells for result in cell.results],
            damaged=max(cell.damaged for cell in cells),
        )

    @property
    def num_networks(self) -> int:
        """S, the number of networks."""
        return len(self.scores["linear"])

    @property
    def converged(self) -> bool:
        """True if all chosen fits of the linear probe, and all few-shot fits, have converged."""
        return all(each["linear"]["converged"] and not each["few_shot"]["num_unconverged"] for each in self.results)

    def accuracy(self, measure: Measure) -> float:
        """Return the mean test score over the clips, the seeds and the folds."""
        return float(np.average(self.scores[measure], axis=1, weights=self.weights).mean())

    def validation_accuracy(self, measure: Measure) -> float:
        """Return the mean score over validation clips, seeds and folds."""
        return float(self.validation[measure].mean())

    @property
    def confusion(self) -> np.ndarray:
        """(K, K) int64 counts of test clips over all seeds and folds, true class by predicted class."""
        return np.sum([result["classes"]["confusion"] for result in self.results], axis=0)


@dataclass(frozen=True)
class Heard:
    """Vectors of some test clips from the first network of a system, for a map."""

    task: str
    """Name of the task, or of its first fold."""
    vectors: np.ndarray
    """(N, D) float32; damaged clips are left out."""
    class_ids: np.ndarray
    """(N,) int64 classes of these clips."""


def read(output: str, task: Task, system: System, protocol: Protocol) -> Cell | None:
    """Read the cell of a system and a task from an output folder; None if it has to be computed."""
    written = read_result(output, task, system, protocol, FORMAT_VERSION)
    return None if written is None else Cell.of(written["seeds"], task, damaged=0)


def compute(
    task: Task, system: System, protocol: Protocol, cache: EmbeddingCache, num_heard: int
) -> tuple[Cell, Heard]:
    """Probe a system on a task; return the cell, and the vectors of at most ``num_heard`` test clips."""
    results: list[ProbeResult] = []
    heard: list[Heard] = []
    for round_ in task.rounds:
        labelled = labelled_clips(round_)
        for vectors_ND in system.vectors(round_, protocol.config, cache):
            results.append(probe(vectors_ND, labelled, protocol.config.probes))
            if not heard:
                heard.append(_hear(round_, vectors_ND, num_heard))
    damaged = max(result.num_damaged for result in results)
    return Cell.of([result.to_json() for result in results], task, damaged), heard[0]


def labelled_clips(task: Task) -> Labelled:
    """Return the clips of a task in the form that probes take."""
    return Labelled(task.class_ids, task.splits, task.groups, len(task.class_names))


def write(output: str, task: Task, system: System, protocol: Protocol, cell: Cell) -> None:
    """Store a cell in an output folder."""
    content = {"classes": task.class_names, "damaged": cell.damaged, "seeds": cell.results}
    write_result(output, task, system, protocol, FORMAT_VERSION, content)


def read_result(
    output: str, task: Task, system: System, protocol: Protocol, format_version: int
) -> dict[str, Any] | None:
    """Read a result of a system on a task that :func:`write_result` stored; None if it has to be computed.

    A result with damaged clips is not read, because the cause, such as a missing file, may be gone.
    """
    if not is_stored(output, task, system):
        return None
    written = storage.read_json(_path(output, task.name, system.name))
    is_current = written["key"] == _key(task, system, protocol, format_version)
    return written if is_current and not written["damaged"] else None


def write_result(
    output: str, task: Task, system: System, protocol: Protocol, format_version: int, content: Mapping[str, Any]
) -> None:
    """Store a result of a system on a task under a key that changes when the result would.

    Args:
        output: folder of the results.
        task, system, protocol: inputs of the result.
        format_version: version of the content; another one has another key.
        content: the result; ``damaged`` is its number of damaged clips.
    """
    known = {"key": _key(task, system, protocol, format_version), "task": task.name, "row": system.name}
    storage.write_json(_path(output, task.name, system.name), {**known, **content}, format_version)


def is_stored(output: str, task: Task, system: System) -> bool:
    """Return True if an output folder holds a cell of a system and a task, even one that has to be computed again."""
    return storage.exists(_path(output, task.name, system.name))


def file_stem(system: str) -> str:
    """Return the beginning of the names of a system's files."""
    return system.replace(" ", "-")


def file_name(system: str) -> str:
    """Return the name of a cell's file in the folder of its task."""
    return f"{file_stem(system)}.json"


def read_content(output: str, task: str, system: str) -> dict[str, Any]:
    """Read what :func:`write` has stored, whatever the clips, the system and the protocol are now.

    Raises:
        FileNotFoundError: there is no such cell.
        ValueError: it is damaged, or of another version.
    """
    return storage.read_json(_path(output, task, system), FORMAT_VERSION, "evaluate again")


def _common(clips: Sequence[np.ndarray]) -> np.ndarray:
    """Return the clips that are in all of some lists, in the order of the first."""
    return reduce(lambda kept, others: kept[np.isin(kept, others)], clips)


def _stacked(clips: Sequence[np.ndarray], scores: Sequence[np.ndarray]) -> np.ndarray:
    """Stack scores of shape (networks, clips), each for clips of its own, for the clips that all of them have."""
    orders = [np.argsort(each) for each in clips]
    kept = _common(clips)
    return np.concatenate(
        [
            each[:, order[np.searchsorted(own, kept, sorter=order)]]
            for own, order, each in zip(clips, orders, scores, strict=True)
        ]
    )


def _path(output: str, task: str, system: str) -> str:
    return storage.join(output, task, file_name(system))


def _hear(task: Task, vectors_ND: np.ndarray, num_heard: int) -> Heard:
    test = np.flatnonzero(task.splits == "test")[:num_heard]
    whole = np.isfinite(vectors_ND[test]).all(axis=1)
    return Heard(task.name, vectors_ND[test][whole], task.class_ids[test][whole])


def _key(task: Task, system: System, protocol: Protocol, format_version: int) -> str:
    networks = " ".join(system.identity(round_) for round_ in task.rounds)
    return storage.sha256(f"{format_version} {networks} {task.index.checksums} {protocol.sha256}".encode())
