"""Watched accuracies in the history of a run: their names, their curves, and the decisions based on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unfused_ray import storage
from unfused_ray.config import MEAN, QUICK_MEASURES, WatchConfig

_PREFIX = "watch/"
_RANDOM = "/random"

History = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class WatchedCurve:
    """Accuracies on a task by one measure, as shares of 1."""

    task: str
    measure: str
    epochs: Sequence[int]
    """Epochs that were looked at, counted from 1; the history counts from 0."""
    accuracies: Sequence[float]
    random: float
    """Mean accuracy of random networks of the same shape."""


@dataclass(frozen=True)
class Look:
    """The score that a run is judged by, after an epoch."""

    epoch: int
    """Number of the epoch, counted from 1."""
    accuracy: float
    random: float


def names(tasks: Sequence[str]) -> list[str]:
    """Return the names of a look's accuracies in the history: the network's by task and measure, then random
    networks'."""
    own = [_name(task, measure) for task in tasks for measure in QUICK_MEASURES]
    return [*own, *(name + _RANDOM for name in own)]


def watched_curves(history: History) -> list[WatchedCurve]:
    """Return the curves of every task and measure, then the means over several tasks; empty if nothing was watched."""
    found: dict[str, list[tuple[int, float, float]]] = {}
    for entry in history:
        for name, value in entry.items():
            if name.startswith(_PREFIX) and (random := entry.get(name + _RANDOM)) is not None:
                found.setdefault(name, []).append((int(entry["epoch"]) + 1, value, random))
    curves = []
    for name, points in found.items():
        task, _, measure = name.removeprefix(_PREFIX).rpartition("/")
        epochs, accuracies = [epoch for epoch, *_ in points], [accuracy for _, accuracy, _ in points]
        curves.append(WatchedCurve(task, measure, epochs, accuracies, points[-1][2]))
    tasks = list(dict.fromkeys(curve.task for curve in curves))
    return [*curves, *(_mean(history, tasks, measure) for measure in QUICK_MEASURES if len(tasks) > 1)]


def looks(history: History, config: WatchConfig) -> list[Look]:
    """Return the looks at all tasks of a configuration: the mean over the tasks, by its measure."""
    return _looks(history, task_names(config), config.measure) if config.data else []


def without_looks(history: History) -> list[dict[str, float]]:
    """Return a history without the accuracies of looks."""
    return [{name: value for name, value in entry.items() if not name.startswith(_PREFIX)} for entry in history]


def best_look(history: History, config: WatchConfig) -> Look | None:
    """Return the best look, the first of equal ones; None before the first look."""
    return max(looks(history, config), key=lambda look: look.accuracy, default=None)


def has_ended_early(history: History, config: WatchConfig) -> bool:
    """Return True if as many looks in a row as the patience allows were no better than an earlier one.

    Only regular looks count, so that a run that was stopped and resumed ends where one that was not does.
    """
    regular = regular_epochs(history, config)
    best = best_look(regular, config)
    if not config.patience or best is None:
        return False
    return sum(look.epoch > best.epoch for look in looks(regular, config)) >= config.patience


def judged_epochs(history: History, config: WatchConfig, epochs: int) -> list[Mapping[str, float]]:
    """Return the epochs whose looks choose the network to export: regular ones, and the last of ``epochs``.

    A look at an end by ``stop_after`` is none of them, so that a run that was stopped and resumed exports what one that
    was not does.
    """
    return [entry for entry in history if is_regular(int(entry["epoch"]), config) or int(entry["epoch"]) + 1 == epochs]


def regular_epochs(history: History, config: WatchConfig) -> list[Mapping[str, float]]:
    """Return the epochs that have a look wherever the run ends: the first, and every ``every`` epochs."""
    return [entry for entry in history if is_regular(int(entry["epoch"]), config)]


def is_regular(epoch: int, config: WatchConfig) -> bool:
    """Return True for an epoch, counted from 0, that has a look wherever the run ends."""
    return epoch % config.every == 0


def task_names(config: WatchConfig) -> list[str]:
    """Return the names of the sources that are watched."""
    return [storage.name(uri) for uri in config.data]


def _looks(history: History, tasks: Sequence[str], measure: str) -> list[Look]:
    own = [_name(task, measure) for task in tasks]
    found = []
    for entry in history:
        if all(name in entry and name + _RANDOM in entry for name in own):
            accuracy, random = (sum(entry[name + end] for name in own) / len(own) for end in ("", _RANDOM))
            found.append(Look(int(entry["epoch"]) + 1, accuracy, random))
    return found


def _mean(history: History, tasks: Sequence[str], measure: str) -> WatchedCurve:
    found = _looks(history, tasks, measure)
    epochs, accuracies = [look.epoch for look in found], [look.accuracy for look in found]
    return WatchedCurve(MEAN, measure, epochs, accuracies, found[-1].random if found else 0.0)


def _name(task: str, measure: str) -> str:
    return f"{_PREFIX}{task}/{measure}"
