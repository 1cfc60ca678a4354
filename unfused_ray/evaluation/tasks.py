"""Labelled tasks: prepared sources with one label per clip, and with splits or folds."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from functools import cached_property

import numpy as np

from unfused_ray import storage
from unfused_ray.config import FrontEndConfig
from unfused_ray.data.shards.format import Manifest, Statistics
from unfused_ray.data.shards.index import ClipIndex, labels_to_ids
from unfused_ray.data.shards.shared import shared_clips
from unfused_ray.data.shards.statistics import compute_statistics
from unfused_ray.data.shards.summary import SharedClips
from unfused_ray.data.sources.notes import first_of

logger = logging.getLogger(__name__)

SPLITS = ("train", "valid", "test")
VALIDATION_SPLITS = ("train", "valid")
"""The splits that may be read while something is still being chosen: test clips judge the choice."""
_SHOWN = 10
_FOLD = re.compile(r"fold(\d+)")
_PART = re.compile(r"test-(.+)")


@dataclass(frozen=True)
class Task:
    """The clips of one task, by clip_id.

    A task whose splits are fold1, fold2 … has one round per fold: that fold is tested, the next one validates, and the
    others train. Any other task is its own only round.
    """

    name: str
    uri: str
    index: ClipIndex
    class_ids: np.ndarray
    """(N,) int64 index into ``class_names``."""
    class_names: list[str]
    splits: np.ndarray
    """(N,) "train", "valid" or "test"; in a task with folds, the fold."""
    groups: np.ndarray
    """(N,) recordings or speakers whose clips must stay in one split; "" is a clip that stands alone."""
    parts: np.ndarray
    """(N,) parts of the test clips that are also reported separately; "" for a clip in no part."""
    training_splits: tuple[str, ...] = ("train",)
    """Splits of the prepared source with training clips; of a task with folds, only its rounds use this."""
    left_out: Mapping[str, int] = dataclass_field(default_factory=dict)
    """Clips of splits that no evaluation takes, by split."""

    @cached_property
    def folds(self) -> tuple[str, ...]:
        """Names of the folds, in the order of their numbers; empty if there are splits."""
        names = np.unique(self.splits).tolist()
        return tuple(sorted((name for name in names if _FOLD.fullmatch(name)), key=lambda name: int(name[4:])))

    @cached_property
    def rounds(self) -> tuple[Task, ...]:
        """The rounds of training and testing: one task per fold, called ``<task>-<fold>``, or the task itself."""
        return tuple(self._round(number) for number in range(len(self.folds))) or (self,)

    def _round(self, number: int) -> Task:
        tested, validating, *training = (*self.folds[number:], *self.folds[:number])
        splits = np.where(self.splits == tested, "test", np.where(self.splits == validating, "valid", "train"))
        return replace(self, name=f"{self.name}-{tested}", splits=splits, training_splits=tuple(training))

    @cached_property
    def tested(self) -> np.ndarray:
        """(N,) bool, True for a clip that is tested in some round."""
        return np.logical_or.reduce([round_.splits == "test" for round_ in self.rounds])

    @cached_property
    def test_weights(self) -> np.ndarray:
        """(T,) weights of the tested clips, with which their mean is the mean of the rounds' means."""
        weights_N = np.zeros(len(self.splits))
        for round_ in self.rounds:
            test = round_.splits == "test"
            weights_N[test] = self.tested.sum() / (len(self.rounds) * test.sum())
        return weights_N[self.tested]

    @cached_property
    def shared(self) -> tuple[SharedClips, ...]:
        """Recordings that are in two of its splits, equal bit by bit, by pair of splits.

        If an older version prepared the source, they are found by reading the shards once.
        """
        here = set(self.index.manifests[0].clips_by_split)
        pairs = shared_clips(Manifest.load(self.uri))
        return tuple(
            pair
            for pair in pairs
            if {pair.first, pair.second} <= here
            and (role(pair.first) == "fold" or role(pair.first) != role(pair.second))
        )

    @cached_property
    def leaks(self) -> tuple[str, ...]:
        """Groups in test and another split, or in two folds, whose test clips therefore resemble training clips."""
        splits_of: dict[str, set[str]] = defaultdict(set)
        for group, split in zip(self.groups.tolist(), self.splits.tolist(), strict=True):
            if group:
                splits_of[group].add(split)
        tested = {"test", *self.folds}
        return tuple(sorted(group for group, splits in splits_of.items() if tested & splits and len(splits) > 1))

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences on clips that are left out, and on groups in two splits; empty if all is well."""
        left = ", ".join(f"{count:,} of split {name or repr(name)}" for name, count in self.left_out.items())
        return (
            *([f"{self.name}: clips in no split of an evaluation are left out: {left}"] if left else ()),
            *([f"{self.name}: {_leaking(self.leaks)}, so its accuracies are too high"] if self.leaks else ()),
        )

    @cached_property
    def training(self) -> ClipIndex:
        """The clips of the training splits alone."""
        return ClipIndex(self.index.manifests, self.training_splits)

    def statistics(self, front_end: FrontEndConfig) -> Statistics:
        """Return the training split's log-mel statistics; compute and store them if the source lacks them."""
        training = ClipIndex.load([self.uri], self.training_splits)  # read again: another row may have computed them
        return compute_statistics(training.manifests[0], front_end)


def role(split: str) -> str:
    """Return the role of a prepared source's split: "test" for a part of test, "fold" for a fold, else its name."""
    if _FOLD.fullmatch(split):
        return "fold"
    return "test" if _PART.fullmatch(split) else split


def load_task(uri: str, splits: tuple[str, ...] = SPLITS, field: str = "tasks") -> Task:
    """Read a task.

    Args:
        uri: folder of the prepared source.
        splits: splits to read; others are ignored. A task with folds is read whole.
        field: configuration field that names the task, for error messages.

    Raises:
        FileNotFoundError: there is no prepared source.
        ValueError: the source lacks a train or test split that should be read, has fewer than three folds, has folds
            beside train, valid or test, has a clip without exactly one label, or has classes that no training clip has.
    """
    manifest = Manifest.load(uri)
    index = ClipIndex([manifest], _splits_to_read(manifest, splits, field))
    labels, split_names, groups = (index.column(name) for name in ("labels", "split", "group"))
    if odd := [i for i, clip in enumerate(labels) if len(clip) != 1]:
        key = index.column("key")[odd[0]]
        raise ValueError(
            f"{field}={uri} has {len(odd):,} of {len(labels):,} clips without exactly one label (the first is {key}, "
            f"with {len(labels[odd[0]])}): an evaluation needs one class per clip, from a list or, where folders are "
            "named after classes, by prepare --columns.label folder"
        )
    class_ids, class_names = labels_to_ids(labels)
    parts = [part.group(1) if (part := _PART.fullmatch(split)) else "" for split in split_names]
    roles = ["test" if part else split for part, split in zip(parts, split_names, strict=True)]
    task = Task(
        storage.name(uri),
        uri,
        index,
        class_ids,
        class_names,
        np.array(roles),
        np.array(groups),
        np.array(parts),
        left_out=_left_out(manifest),
    )
    _refuse_unseen_classes(task, field)
    if task.leaks:
        logger.warning("%s: %s: its accuracy is too high", task.name, _leaking(task.leaks))
    return task


def refuse_shared(task: Task) -> None:
    """Refuse a task whose tested recordings are also in another split.

    Raises:
        ValueError: names the splits and the clips.
    """
    if tested := [pair for pair in task.shared if role(pair.first) in ("test", "fold")]:
        raise ValueError(
            f"tasks={task.uri}: {'; '.join(pair.text for pair in tested)}. An accuracy on recordings that were trained "
            "on is too high: leave them out of one split and prepare the task again, or keep them with --shared-clips "
            "keep, which the table then notes"
        )


def _splits_to_read(manifest: Manifest, wanted: tuple[str, ...], field: str) -> Sequence[str]:
    """Return the source's names of the wanted splits: the splits themselves, parts of test, or folds."""
    have = manifest.clips_by_split
    if folds := [split for split in have if role(split) == "fold"]:
        if beside := [split for split in have if role(split) in SPLITS]:
            raise ValueError(
                f"{field}={manifest.uri} has folds ({', '.join(folds)}) and also {', '.join(beside)}: an evaluation "
                "tests either each fold in turn, or a split. Leave out one kind, and prepare the task again"
            )
        if len(folds) < 3 or "test" not in wanted:
            raise ValueError(
                f"{field}={manifest.uri} has {len(folds)} folds and no train, valid and test clips: an evaluation "
                "needs three folds or more, or the splits train and test"
            )
        return folds
    found = [split for split in have if role(split) in wanted]
    roles = {role(split) for split in found}
    missing = [split for split in ("train", "test") if split in wanted and split not in roles]
    if found and missing:
        raise ValueError(
            f"{field}={manifest.uri} has no split {' and no split '.join(missing)}, only {', '.join(found)}: a task "
            "needs train and test, and valid to choose the probe by"
        )
    return found or wanted


def _refuse_unseen_classes(task: Task, field: str) -> None:
    """Refuse classes of valid or test that no training clip has: a probe is never right about them."""
    for round_ in task.rounds:
        classes = {split: set(task.class_ids[round_.splits == split].tolist()) for split in SPLITS}
        for split in ("valid", "test"):
            if unseen := sorted(classes[split] - classes["train"]):
                names = [task.class_names[number] for number in unseen]
                train = [task.class_names[number] for number in sorted(classes["train"])]
                raise ValueError(
                    f"{field}={task.uri}: split {split} of {round_.name} has classes that its training clips lack: "
                    f"{first_of(names, _SHOWN)}; train has {first_of(train, _SHOWN)}. Write labels alike in all "
                    "splits, or leave such clips out, and prepare the task again"
                )


def _left_out(manifest: Manifest) -> dict[str, int]:
    """Count the clips of splits that no evaluation takes: splits of other names, and all splits beside folds."""
    clips = manifest.clips_by_split
    has_folds = any(role(split) == "fold" for split in clips)
    taken = ("fold",) if has_folds else SPLITS
    return {split: count for split, count in clips.items() if role(split) not in taken}


def _leaking(groups: Sequence[str]) -> str:
    count = "1 group is" if len(groups) == 1 else f"{len(groups):,} groups are"
    return f"{count} in test and in another split ({groups[0]} …)"


@contextmanager
def errors_name(task: Task, row: str) -> Iterator[None]:
    """Name a row and the place of its task in the errors of a block that probes the row on the task."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{row} on {task.uri}: {error}") from error
