"""The labelled clips on which a training is watched: some of a task's train and valid clips, never its test clips."""

from __future__ import annotations

from collections import Counter
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
    """Task with training and validation clips alone."""
    clip_ids: np.ndarray
    """(N,) int64, in ascending order."""

    @property
    def splits(self) -> dict[str, int]:
        """Number of chosen clips by split."""
        return {split: int((self.task.splits[self.clip_ids] == split).sum()) for split in VALIDATION_SPLITS}


def watched_tasks(config: WatchConfig, front_end: FrontEndConfig) -> tuple[WatchedTask, ...]:
    """Read the labels of the watched sources, and choose their clips.

    Args:
        config: names the sources.
        front_end: front end of the watched networks.

    Raises:
        FileNotFoundError: a source is not prepared.
        ValueError: a source has a clip without exactly one label, no train or no valid split, a single class, another
            sample rate, or the name of another source; names the source.
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
    """Choose at most ``most`` clips, always the same ones, balanced over classes, half from train and half from valid.

    If a split has too few clips for its half, the other split fills up. Valid clips are taken only from classes of the
    chosen train clips.

    Args:
        class_ids_N, splits_N: classes and splits of all clips.
        most: largest number of clips of both splits together.
        name: name of the task.
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
    """Order rows so that every beginning has equally many clips of each class, as long as the classes last."""
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
        there = ", ".join(split or "clips without a split" for split in have)
        raise ValueError(
            f"{_FIELD}={uri} has no split {' and no split '.join(missing)}, only {there}: probes learn from "
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
