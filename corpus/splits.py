"""Assigns whole groups to train, valid and test."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from corpus.hashing import by_hash, hash_fraction

SPLITS = ("train", "valid", "test")
Fractions: TypeAlias = tuple[float, float, float]
_MOST_GROUPS_TO_SWAP = 120  # pairs grow with the square of the groups
_MISSING, _SINGLE = 2.0, 0.25  # penalties for a class without a clip, or with only one, in a split


class Labelled(Protocol):
    """A clip that has a class and a group."""

    @property
    def label(self) -> str:
        """Class of the clip."""
        ...

    @property
    def family(self) -> str:
        """Name shared by the groups that must have one split: the clip's own, or several."""
        ...

    @property
    def split(self) -> str:
        """Split from the task module, or ``""``."""
        ...


@dataclass(frozen=True)
class ByHash:
    """Splits by the hash of a group's name, for tasks with hundreds of groups."""

    fractions: Fractions = (0.65, 0.15, 0.20)
    about = "hash of the group"

    def assign(self, task: str, clips: Sequence[Labelled]) -> dict[str, str]:
        """Return the split of each family."""
        return {clip.family: hash_split(clip.family, task, self.fractions) for clip in clips}


@dataclass(frozen=True)
class Balanced:
    """Splits by the hash, then balances classes, for tasks with few groups, where the hash may leave a class out."""

    fractions: Fractions = (0.65, 0.15, 0.20)
    about = "hash of the group, then balanced over classes"

    def assign(self, task: str, clips: Sequence[Labelled]) -> dict[str, str]:
        """Return the split of each family."""
        return balanced_split([(clip.label, clip.family) for clip in clips], task, self.fractions)


@dataclass(frozen=True)
class Given:
    """Uses the task module's ``Clip.split``, for tasks whose clips depend on their split, for example by their
    noise."""

    about = "decided by the task"

    def assign(self, task: str, clips: Sequence[Labelled]) -> dict[str, str]:
        """Return the split of each family.

        Raises:
            ValueError: a clip has no split, or a family has two.
        """
        split_of: dict[str, str] = {}
        for clip in clips:
            if clip.split not in SPLITS:
                raise ValueError(f"task {task}: a clip of {clip.family!r} has the split {clip.split!r}")
            if split_of.setdefault(clip.family, clip.split) != clip.split:
                raise ValueError(f"task {task}: {clip.family!r} is in {split_of[clip.family]} and in {clip.split}")
        return split_of


SplitRule: TypeAlias = ByHash | Balanced | Given


def hash_split(group: str, salt: str, fractions: Fractions = (0.65, 0.15, 0.20)) -> str:
    """Return the split of a group by the hash of its name."""
    place = hash_fraction(f"split/{salt}/{group}")
    return "train" if place < fractions[0] else "valid" if place < fractions[0] + fractions[1] else "test"


def dealt_split(groups: Iterable[str], salt: str, fractions: Fractions) -> dict[str, str]:
    """Deal groups of equal weight, in hash order, to the splits in the wanted shares."""
    order = by_hash(sorted(groups), f"deal/{salt}")
    first, second = round(fractions[0] * len(order)), round((fractions[0] + fractions[1]) * len(order))
    return {group: SPLITS[(i >= first) + (i >= second)] for i, group in enumerate(order)}


def balanced_split(rows: Sequence[tuple[str, str]], salt: str, fractions: Fractions) -> dict[str, str]:
    """Split groups so that each class has the wanted shares, and is missing from no split if possible.

    It starts from :func:`hash_split`. Then it repeatedly makes the move of one group, or the swap of two, that most
    reduces the squared distance between each class's shares and the wanted ones, until none reduces it.

    Args:
        rows: (label, group) of each clip.
        salt: name of the task.
        fractions: wanted shares of train, valid and test.
    """
    labels, groups = sorted({label for label, _ in rows}), sorted({group for _, group in rows})
    place_of_label, place_of_group = ({name: i for i, name in enumerate(names)} for names in (labels, groups))
    count_GL = np.zeros((len(groups), len(labels)))
    for label, group in rows:
        count_GL[place_of_group[group], place_of_label[label]] += 1
    at_G = np.array([SPLITS.index(hash_split(group, salt, fractions)) for group in groups])
    cost = _cost(count_GL, at_G, fractions)
    while True:
        best = None
        for move in _moves(at_G):
            moved_G = at_G.copy()
            for group_place, split in move:
                moved_G[group_place] = split
            if (moved := _cost(count_GL, moved_G, fractions)) < cost - 1e-9:
                cost, best = moved, moved_G
        if best is None:
            return {group: SPLITS[split] for group, split in zip(groups, at_G, strict=True)}
        at_G = best


def _moves(at_G: np.ndarray) -> list[tuple[tuple[int, int], ...]]:
    """List each move of one group to another split, and the swaps of two groups unless there are many groups."""
    places = range(len(at_G))
    moves: list[tuple[tuple[int, int], ...]] = [
        ((place, split),) for place in places for split in range(len(SPLITS)) if split != at_G[place]
    ]
    if len(at_G) <= _MOST_GROUPS_TO_SWAP:
        pairs = itertools.combinations(places, 2)
        moves += [((a, int(at_G[b])), (b, int(at_G[a]))) for a, b in pairs if at_G[a] != at_G[b]]
    return moves


def _cost(count_GL: np.ndarray, at_G: np.ndarray, fractions: Fractions) -> float:
    count_SL = np.stack([count_GL[at_G == split].sum(0) for split in range(len(SPLITS))])
    distance = ((count_SL / count_GL.sum(0) - np.array(fractions)[:, None]) ** 2).sum()
    return float(distance + _MISSING * (count_SL == 0).sum() + _SINGLE * (count_SL == 1).sum())


class Groups:
    """Joins names that share recordings; a group is represented by its smallest name."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        """Return the name that represents the group of ``name``."""
        while (parent := self._parent.setdefault(name, name)) != name:
            name = parent
        return name

    def join(self, first: str, second: str) -> None:
        """Merge the groups of two names."""
        least, other = sorted((self.find(first), self.find(second)))
        self._parent[other] = least

    def members(self) -> Mapping[str, list[str]]:
        """Return all names of each group."""
        found: dict[str, list[str]] = {}
        for name in sorted(self._parent):
            found.setdefault(self.find(name), []).append(name)
        return found
