"""The labelled clips that a training is watched on: some of a task's train and valid clips, never any of test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unfused_ray.audio import randomness
from unfused_ray.config import FrontEndConfig, WatchConfig
from unfused_ray.data.shards.format import Manifest, refuse_other_rate
from unfused_ray.evaluation.tasks import VALIDATION_SPLITS, Task, load_task

_FIELD = "watch.data"


@dataclass(frozen=True)
class WatchedTask:
    """Some clips of a task."""

    task: Task
    """Training and validation clips alone."""
    clip_ids: np.ndarray
    """(N,) int64, in ascending order."""

    @property
    def splits(self) -> dict[str, int]:
        """Number of clips by split."""
        return {split: int((self.task.splits[self.clip_ids] == split).sum()) for split in VALIDATION_SPLITS}


def watched_tasks(config: WatchConfig, front_end: FrontEndConfig) -> tuple[WatchedTask, ...]:
    """Read the labels of the sources that are watched, and choose their clips.

    Args:
        config: that names them.
        front_end: of the networks that are looked at.

    Raises:
        FileNotFoundError: one is not prepared.
        ValueError: one has not one label a clip, no train or no valid split, a single class, another sample rate, or
            the name of another; names it.
    """
    tasks = tuple(_watched(uri, config.clips) for uri in config.data)
    for watched in tasks:
        refuse_other_rate(watched.task.index.manifests, front_end.sample_rate)
    repeated = [name for name, count in Counter(watched.task.name for watched in tasks).items() if count > 1]
    if repeated:
        raise ValueError(
            f"{_FIELD}: several sources are called {repeated[0]!r}; a source has the name of its folder: rename one"
        )
    return tasks


def choose_clips(class_ids_N: np.ndarray, splits_N: np.ndarray, most: int, name: str) -> np.ndarray:
    """Choose at most ``most`` clips, always the same: as many of each class as there are, train and valid alike.

    A split that has less than half of them leaves the rest to the other. Of valid, clips of classes are taken that a
    clip taken of train has.

    Args:
        class_ids_N, splits_N: of all clips.
        most: clips of both splits together.
        name: of the task.
    """
    ordered = {
        split: _ordered(class_ids_N, np.flatnonzero(splits_N == split), f"{name}, {split}")
        for split in VALIDATION_SPLITS
    }
    num_valid = min(len(ordered["valid"]), max(most // 2, most - len(ordered["train"])))
    train = ordered["train"][: most - num_valid]
    known = np.isin(class_ids_N[ordered["valid"]], class_ids_N[train])
    return np.sort(np.concatenate([train, ordered["valid"][known][:num_valid]]))


def _ordered(class_ids_N: np.ndarray, rows: np.ndarray, name: str) -> np.ndarray:
    """Rows in an order whose beginnings have equally many clips of each class, as long as there are any."""
    order = randomness.generator(0, f"watched clips of {name}").permutation(rows)
    seen: Counter[int] = Counter()
    places = np.empty(len(order), np.int64)
    for number, class_id in enumerate(class_ids_N[order].tolist()):
        places[number] = seen[class_id]
        seen[class_id] += 1
    return order[np.argsort(places, kind="stable")]


def _watched(uri: str, most: int) -> WatchedTask:
    have = Manifest.load(uri).clips_by_split
    if missing := [split for split in VALIDATION_SPLITS if not have.get(split)]:
        raise ValueError(
            f"{_FIELD}={uri} has no split {' and no split '.join(missing)}, only {_listed(have)}: probes learn from "
            "train and are scored on valid; test is never read"
        )
    task = load_task(uri, VALIDATION_SPLITS, _FIELD)
    clip_ids = choose_clips(task.class_ids, task.splits, most, task.name)
    of_train = clip_ids[task.splits[clip_ids] == "train"]
    if len(np.unique(task.class_ids[of_train])) < 2:
        raise ValueError(
            f"{_FIELD}={uri} has clips of a single class, {task.class_names[0]}: there is nothing to classify"
        )
    return WatchedTask(task, clip_ids)


def _listed(splits: Sequence[str] | dict[str, int]) -> str:
    return ", ".join(split or "clips without a split" for split in splits)
