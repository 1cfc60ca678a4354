"""Counts near-copies of test clips among the clips that a network was trained on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from unfused_ray import storage
from unfused_ray.data.parts.executor import IN_PROCESS
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.models.export import read_description
from unfused_ray.retrieval.duplicates import Copies, find_copies
from unfused_ray.retrieval.fingerprints import has_fingerprints

_SECONDS_UNASKED = 3600.0
"""Longest audio that is fingerprinted without an explicit command: a minute of one core."""

TrainingSources = tuple[tuple[str, tuple[str, ...]], ...]
"""Prepared sources that a network was trained on, and their splits."""


def training_sources(uri: str) -> TrainingSources:
    """List the sources and splits that a network, its teacher and the run it began with were trained on.

    Raises:
        FileNotFoundError: one of these networks is no longer there.
        ValueError: the export of one does not name its training data.
    """
    config: Mapping[str, Any] | None = read_description(uri)["extra"].get("config")
    if not config or "data" not in config:
        raise ValueError("its export does not say")
    found: dict[str, set[str]] = defaultdict(set)  # a source that two of them have heard counts once
    for source in config["data"]:
        found[source].update(config["splits"])
    for before in filter(None, map(config.get, ("teacher", "init_from", "fork"))):
        for source, splits in training_sources(before):
            found[source].update(splits)
    return tuple((source, tuple(sorted(splits))) for source, splits in sorted(found.items()))


def near_copies(task: str, tested: ClipIndex, models: Mapping[str, str]) -> list[str]:
    """Count the test clips with a near-copy in each model's training data; return a sentence per set of such data.

    Sets of more than an hour are searched only if their fingerprints are stored already.

    Args:
        task: name of the task.
        tested: the test clips.
        models: names and folders of trained networks.
    """
    by_set: dict[TrainingSources, list[str]] = defaultdict(list)
    unknown: dict[str, list[str]] = defaultdict(list)
    for name, uri in models.items():
        try:
            by_set[training_sources(uri)].append(name)
        except (OSError, ValueError) as error:
            unknown[str(error)].append(name)
    sentences = []
    for heard, names in by_set.items():
        try:
            sentences.append(f"{task}, test: {_found(tested, heard, names)}")
        except (OSError, ValueError) as error:
            unknown[str(error)].append(", ".join(names))
    return [
        *sentences,
        *(
            f"{task}: near-copies are not searched among the training clips of {', '.join(names)} ({reason})"
            for reason, names in unknown.items()
        ),
    ]


def by_finding(sentences: Sequence[str], tasks: Collection[str]) -> list[str]:
    """Return sentences of :func:`near_copies`, each finding once with all the tasks that it concerns."""
    tasks_of: dict[str, list[str]] = defaultdict(list)
    for sentence in sentences:
        task, colon, finding = sentence.partition(": ")
        if colon and task in tasks:
            tasks_of[finding].append(task)
        else:  # it concerns no single task
            tasks_of[sentence] = []
    return [", ".join(names) + ": " * bool(names) + finding for finding, names in tasks_of.items()]


def _found(tested: ClipIndex, heard: TrainingSources, names: Sequence[str]) -> str:
    indexes = [ClipIndex.load([uri], _existing(uri, splits)) for uri, splits in heard]
    index = ClipIndex([manifest for each in indexes for manifest in each.manifests])
    seconds = sum(manifest.seconds for manifest in index.manifests)
    if seconds > _SECONDS_UNASKED and not has_fingerprints(index):
        shown = " ".join(storage.masked(uri) for uri, _ in heard)
        raise ValueError(
            f"{seconds / 3600:.0f} hours without fingerprints: make them by unfused-ray duplicates {shown}"
        )
    copies = find_copies(tested, index, IN_PROCESS)
    return f"{count_in_words(copies)} among the {index.num_clips:,} training clips of {', '.join(names)}"


def _existing(uri: str, splits: Sequence[str]) -> list[str]:
    """Return the given splits that a source has."""
    have = ClipIndex.load([uri], None).manifests[0].clips_by_split
    return [split for split in splits if split in have]


def count_in_words(copies: Copies) -> str:
    """Return a sentence on the number of clips of the first set with a near-copy, with an example."""
    total = copies.first.num_clips
    threshold = copies.threshold
    known = f"similarity {threshold.similarity:.3f}{f'; {threshold.doubt}' if threshold.doubt else ''}"
    if not copies.pairs:
        return f"none of {total:,} clips has a near-copy ({known})"
    clip, (other, similarity) = max(copies.pairs.items(), key=lambda pair: pair[1][1])
    keys = copies.first.column("key")[clip], copies.second.column("key")[other]
    return (
        f"{len(copies.pairs):,} of {total:,} clips have a near-copy ({known}), such as {keys[0]} in {keys[1]} "
        f"({similarity:.3f}),"
    )
