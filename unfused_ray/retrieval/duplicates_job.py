"""The search for near-copies in prepared sources."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

from rich.console import Group

from unfused_ray import paths, storage
from unfused_ray.config import DuplicatesConfig
from unfused_ray.data.parts.default_executor import default_executor
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.progress import summary
from unfused_ray.retrieval.duplicates import Copies, find_copies
from unfused_ray.retrieval.fingerprints import has_fingerprints


@dataclass(frozen=True)
class DuplicatesPlan:
    """The clips whose near-copies are wanted, and the clips to search."""

    config: DuplicatesConfig
    """Configuration with absolute paths."""
    first: ClipIndex
    second: ClipIndex | None
    """None searches the first clips themselves."""


def check(config: DuplicatesConfig) -> DuplicatesPlan:
    """Read the manifests of the sources.

    Raises:
        FileNotFoundError: a source is not prepared.
        ValueError: a path cannot be used, a source lacks a split, or a source is named twice or both sides share
            clips, which would be found as copies of themselves.
    """
    config = paths.check(config)
    if config.output and storage.is_folder(config.output):
        raise ValueError(f"output={config.output} is a folder, and the pairs are one CSV file: name a file")
    if twice := [uri for uri, times in Counter(map(_real, config.sources)).items() if times > 1]:
        raise ValueError(
            f"sources={', '.join(config.sources)} names {twice[0]} twice, so its clips would be counted twice and "
            "found as copies of themselves: name each source once"
        )
    first = ClipIndex.load(config.sources, config.splits or None)
    second = ClipIndex.load(config.against, config.against_splits or None) if config.against else None
    if second and (shared := _shards(first) & _shards(second)):
        raise ValueError(
            f"sources and against both select {min(shared)}, whose clips would be found as copies of themselves: name "
            "other splits, or leave --against out and name all sources in which to look"
        )
    return DuplicatesPlan(config, first, second)


def _shards(index: ClipIndex) -> set[str]:
    return {storage.join(_real(manifest.uri), shard.file) for manifest in index.manifests for shard in manifest.shards}


def _real(uri: str) -> str:
    """Return a folder with all links in its path resolved."""
    return os.path.realpath(uri) if storage.is_local(uri) else storage.join(uri)


def describe(plan: DuplicatesPlan) -> Group:
    """Summarise a search for near-copies without starting it."""
    indexes = [index for index in (plan.first, plan.second) if index]
    among = f"{plan.second.num_clips:,} of {', '.join(plan.config.against)}" if plan.second else "these"
    rows: dict[str, float | str] = {
        "clips": f"{plan.first.num_clips:,} of {', '.join(plan.config.sources)}",
        "compared with": among,
        "comparisons": plan.first.num_clips * (plan.second or plan.first).num_clips,
        "fingerprints": "kept from before" if all(map(has_fingerprints, indexes)) else "some would be computed first",
    }
    return summary("would look for near-copies; a dry run writes nothing", rows)


def run(plan: DuplicatesPlan) -> Copies:
    """Find near-copies; write all pairs if a file is named. Fingerprints are stored in the sources.

    Raises:
        ValueError: the sets have different front ends.
        OSError: a shard is missing, or its storage does not answer.
    """
    found = find_copies(plan.first, plan.second, default_executor(), plan.config.precision)
    if plan.config.output:
        storage.write_bytes(plan.config.output, found.to_csv().encode())
    return found
