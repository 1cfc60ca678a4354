"""The summary of a prepared source: labels by split, recordings in two splits, and columns and files taken or left."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from unfused_ray.data.sources.notes import Notes, by_kind, first_of, sentences

_MOST = 20
_SHOWN = 8
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?")


@dataclass(frozen=True)
class LabelCounts:
    """Counts of the labels in a split."""

    most: dict[str, int]
    """Clips of the most frequent labels, the largest first."""
    others: int
    """Number of other labels."""
    unlabelled: int
    """Clips without a label."""

    @classmethod
    def of(cls, counts: Counter[str], unlabelled: int) -> LabelCounts:
        """Keep the most frequent labels, and count the others."""
        most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_MOST]
        return cls(dict(most), len(counts) - len(most), unlabelled)

    @property
    def text(self) -> str:
        """The counts in words."""
        shown = [f"{label} {count:,}" for label, count in list(self.most.items())[:_SHOWN]]
        more = self.others + len(self.most) - len(shown)
        words = [*shown, *([f"{more:,} more"] if more else [])]
        return ", ".join(words) + (f"; {self.unlabelled:,} clips without" if words and self.unlabelled else "")


@dataclass(frozen=True)
class SharedClips:
    """Recordings that are in two splits: their decoded samples are equal bit by bit."""

    first: str
    """The held-out split, if one of the two is."""
    second: str
    clips: int
    """Clips of the first split whose recording is also in the second."""
    keys: tuple[str, str]
    """Keys of one clip in each split with the same recording."""

    @property
    def text(self) -> str:
        """One such pair, in words."""
        first, second = self.keys
        return (
            f"{self.clips:,} clips of {self.first} are in {self.second} too, such as {first}, which is {second} there"
        )


@dataclass(frozen=True)
class SourceSummary:
    """The findings of an ingest about a source, besides its clips."""

    labels: dict[str, LabelCounts]
    """Counts of the labels, by split."""
    shared: tuple[SharedClips, ...]
    facts: dict[str, str]
    """Columns, names and files that were taken or left, by heading."""
    sentences: tuple[str, ...]
    """Warnings about things that may not be as the source's author meant them."""

    @classmethod
    def of(
        cls,
        labels: Mapping[str, Counter[str]],
        shared: Sequence[SharedClips],
        notes: Notes,
        crossing: Sequence[str] = (),
    ) -> SourceSummary:
        """Summarise a source.

        Args:
            labels: clips of each label, by split; unlabelled clips are under "".
            shared: recordings in two splits.
            notes: notes on the listing.
            crossing: sentences on groups in several splits.
        """
        named = {split: Counter({label: n for label, n in counts.items() if label}) for split, counts in labels.items()}
        said = [*sentences(notes), *unseen_labels(named), *_equal_numbers(named), *_alike(named), *crossing]
        said += [pair.text for pair in shared]
        return cls(
            labels={split: LabelCounts.of(named[split], labels[split][""]) for split in sorted(labels)},
            shared=tuple(shared),
            facts=by_kind(notes),
            sentences=tuple(said),
        )

    def of_split(self, split: str) -> str:
        """Describe the labels of a split in words; "" if it has none."""
        return self.labels[split].text if split in self.labels else ""


def _equal_numbers(labels: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return a sentence on labels that are one number spelt in several ways."""
    spelt: dict[float, set[str]] = {}
    for label in {label for of_split in labels.values() for label in of_split if _NUMBER.fullmatch(label)}:
        spelt.setdefault(float(label), set()).add(label)
    several = [" and ".join(sorted(each)) for _, each in sorted(spelt.items()) if len(each) > 1]
    return [f"labels that spell one number differently are different classes: {first_of(several)}"] if several else []


def _alike(labels: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return a sentence on labels that look alike because only their accents are stored in other ways."""
    spelt = Counter(_composed(label) for label in {label for of_split in labels.values() for label in of_split})
    several = sorted(label for label, count in spelt.items() if count > 1)
    text = "labels that look alike are different classes, because their accents are stored in different ways"
    return [f"{text} (NFC and NFD of Unicode): {first_of(several)}"] if several else []


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def unseen_labels(labels: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return sentences on labels of held-out splits that no training clip has."""
    train = labels.get("train", {})
    return [
        f"{split} has labels that train lacks: {first_of(lacking)}; train has {first_of(sorted(train))}"
        for split in sorted(labels)
        if train and split.partition("-")[0] in ("valid", "test") and (lacking := sorted({*labels[split]} - {*train}))
    ]


def crossing_groups(places: Iterable[tuple[str, str]]) -> list[str]:
    """Return a sentence on groups, such as speakers, that are in more than one split.

    Args:
        places: group and split of each clip; "" is none. Parts of the test clips (``test-clean``) count as one split.
    """
    splits: dict[str, set[str]] = defaultdict(set)
    for group, split in set(places):
        if group and split:
            splits[_composed(group)].add("test" if split.startswith("test-") else split)
    crossing = {group: sorted(found) for group, found in sorted(splits.items()) if len(found) > 1}
    if not crossing:
        return []
    named = first_of([f"{group} in {' and '.join(found)}" for group, found in crossing.items()])
    count = "1 group is" if len(crossing) == 1 else f"{len(crossing):,} groups are"
    return [f"{count} in more than one split ({named}): a group should be in one split alone"]
