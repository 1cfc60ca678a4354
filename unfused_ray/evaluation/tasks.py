"""Labelled tasks: prepared sources whose clips have one label each, and splits."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from unfused_ray import cluster, storage
from unfused_ray.config import FrontEndConfig
from unfused_ray.data.ingest.statistics import compute_statistics
from unfused_ray.data.shards import ClipIndex, Statistics, labels_to_ids

logger = logging.getLogger(__name__)

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Task:
    """The clips of one task, by clip_id."""

    name: str
    uri: str
    index: ClipIndex
    class_ids: np.ndarray
    """(N,) int64 index into ``class_names``."""
    class_names: list[str]
    splits: np.ndarray
    """(N,) "train", "valid" or "test"."""
    groups: np.ndarray
    """(N,) what may not be torn apart, such as a speaker; "" where a clip stands alone."""

    @cached_property
    def training(self) -> ClipIndex:
        """The clips of the training split alone."""
        return ClipIndex(self.index.manifests, ("train",))

    def statistics(self, front_end: FrontEndConfig) -> Statistics:
        """Log-mel statistics of the training split; computed on Ray, and kept, where the source lacks them."""
        training = ClipIndex.load([self.uri], ("train",))  # read anew: another row may have had them computed
        known = training.statistics(front_end)
        if known is not None:
            return known
        with cluster.session():
            return compute_statistics(training.manifests[0], front_end)


def load_task(uri: str, splits: tuple[str, ...] = SPLITS) -> Task:
    """Read a task.

    Args:
        uri: folder of the prepared source.
        splits: that are read; others are as if they did not exist.

    Raises:
        FileNotFoundError: there is no prepared source.
        ValueError: it has no train or no test split where they are to be read, or not one label a clip.
    """
    index = ClipIndex.load([uri], splits)
    have = index.manifests[0].clips_by_split
    if missing := [split for split in ("train", "test") if split in splits and split not in have]:
        raise ValueError(
            f"tasks={uri} has no split {' and no split '.join(missing)}, only {', '.join(have)}: a task needs "
            "train and test, and valid to choose the probe by"
        )
    labels, split_names, groups = (index.column(name) for name in ("labels", "split", "group"))
    if odd := [i for i, clip in enumerate(labels) if len(clip) != 1]:
        key = index.column("key")[odd[0]]
        raise ValueError(
            f"tasks={uri} has {len(odd):,} of {len(labels):,} clips without exactly one label (the first is {key}, "
            f"with {len(labels[odd[0]])}): linear evaluation needs one class a clip"
        )
    class_ids, class_names = labels_to_ids(labels)
    task = Task(storage.name(uri), uri, index, class_ids, class_names, np.array(split_names), np.array(groups))
    _warn_of_leaks(task)
    return task


def _warn_of_leaks(task: Task) -> None:
    """Say so where a group is in more than one split: test clips then resemble training clips."""
    splits_of: dict[str, set[str]] = defaultdict(set)
    for group, split in zip(task.groups.tolist(), task.splits.tolist(), strict=True):
        if group:
            splits_of[group].add(split)
    if leaks := sorted(group for group, splits in splits_of.items() if "test" in splits and len(splits) > 1):
        logger.warning(
            "%s: %d groups are in test and in another split (%s …): its accuracy is too high",
            task.name,
            len(leaks),
            leaks[0],
        )
