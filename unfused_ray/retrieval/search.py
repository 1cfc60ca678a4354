"""Searches an index by an audio file, by a clip, by a label, or by a classifier of marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Group

from unfused_ray import paths, storage
from unfused_ray.config import SearchConfig
from unfused_ray.progress import summary
from unfused_ray.retrieval.collection import Collection
from unfused_ray.retrieval.format import IndexManifest
from unfused_ray.retrieval.hits import Found, Hit
from unfused_ray.retrieval.learn import first_of_recordings, learn, scores
from unfused_ray.retrieval.marks import ids_of, read_marks
from unfused_ray.retrieval.queries import Query, ask_key, ask_label, ask_wave


@dataclass(frozen=True)
class SearchPlan:
    """A search whose index is open."""

    config: SearchConfig
    """Configuration with absolute paths."""
    collection: Collection
    allowed: np.ndarray
    """(N,) bool: vectors of clips that pass all filters."""


def check(config: SearchConfig) -> SearchPlan:
    """Open the index, and find the clips that pass the filters.

    Raises:
        FileNotFoundError: there is no index, or no file with the query or the marks.
        ValueError: there is no query, the query is a folder, no clip passes the filters, or the index is damaged.
    """
    config = paths.check(config)
    if not config.questions:
        raise ValueError("a search needs a question: give an audio file, --key, --label or --learn")
    for field in ("query", "learn"):
        uri = config.get(field)
        if uri and not storage.exists(uri):
            raise FileNotFoundError(f"{field}={uri} does not exist")
    if config.query and storage.is_folder(config.query):
        raise ValueError(f"query={config.query} is a folder, but a question is one audio file: name a file in it")
    collection = Collection.open(config.index)
    allowed_N = collection.clips.allowed(config)
    if not allowed_N.any():
        raise ValueError(
            f"none of the {len(allowed_N):,} vectors of {config.index} passes the filters: ask for fewer of --splits, "
            "--labels, --sources, --min-seconds and --max-seconds"
        )
    return SearchPlan(config, collection, allowed_N)


def describe(plan: SearchPlan) -> Group:
    """Summarise a search without running it."""
    config, num_allowed = plan.config, int(plan.allowed.sum())
    (question,) = config.questions
    rows: dict[str, float | str] = {
        "question": f"{question} {config.get(question)}",
        "vectors that pass the filters": f"{num_allowed:,} of {len(plan.allowed):,}",
        "kept as": plan.collection.trained.kind,
        "recordings to find": config.count,
    }
    return summary(f"would search {config.index}", rows)


def run(plan: SearchPlan) -> Found:
    """Find the recordings that are nearest to the query, without the query itself.

    If the index has changed since it was opened, so that files of it are gone, it is opened again.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the query does not fit the index, no marked clip is kept, or the index is damaged.
    """
    try:
        return _find(plan)
    except ValueError:
        if IndexManifest.load(plan.config.index) == plan.collection.manifest:
            raise
    return _find(check(plan.config))


def _find(plan: SearchPlan) -> Found:
    config, collection = plan.config, plan.collection
    if config.learn:
        return _learnt(plan)
    question = _ask(collection, config)
    ids, similarities = collection.nearest(question.vector, config.count, plan.allowed & ~question.own)
    return Found(
        index=collection.manifest.uri,
        question=question.text + _filters(config),
        measure="similarity",
        hits=_hits(collection, ids, similarities.tolist()),
        pcm=question.pcm,
        sample_rate=question.sample_rate,
        clip=question.clip,
    )


def _ask(collection: Collection, config: SearchConfig) -> Query:
    if config.query:
        return ask_wave(collection, config.query, config.encoder, config.first, config.last)
    if config.key:
        return ask_key(collection, config.key, config.key_source, config.first, config.last)
    return ask_label(collection, config.label)


def _filters(config: SearchConfig) -> str:
    """Return the filters of a search in words, to follow its query."""
    parts = [f"{name} {', '.join(values)}" for name in ("splits", "labels", "sources") if (values := config.get(name))]
    parts += [f"at least {config.min_seconds:g} s"] if config.min_seconds else []
    parts += [f"at most {config.max_seconds:g} s"] if config.max_seconds is not None else []
    return f" (only {'; '.join(parts)})" if parts else ""


def _learnt(plan: SearchPlan) -> Found:
    """Find the clips that a classifier of marks would keep, and those it is least sure about, without marked clips."""
    collection, count = plan.collection, plan.config.count
    marks = read_marks(plan.config.learn)
    known = ids_of(collection, marks)
    learned = learn(collection, known)
    scores_N, recordings = scores(collection, learned), collection.clips.recordings
    ids = np.flatnonzero(plan.allowed & ~np.isin(recordings, recordings[np.fromiter(known, np.int64)]))
    kept = first_of_recordings(ids[np.argsort(-scores_N[ids], kind="stable")], recordings, count)
    unsure = first_of_recordings(ids[np.argsort(np.abs(scores_N[ids]), kind="stable")], recordings, count)
    probabilities_N = 1 / (1 + np.exp(-scores_N.astype(np.float64)))
    return Found(
        index=collection.manifest.uri,
        question=learned.text + _filters(plan.config),
        measure="probability",
        hits=_hits(collection, kept, probabilities_N[kept].tolist()),
        unsure=_hits(collection, unsure, probabilities_N[unsure].tolist()),
        marks=tuple(marks),
    )


def _hits(collection: Collection, ids: np.ndarray, values: Sequence[float]) -> tuple[Hit, ...]:
    found = zip(values, collection.clips.clips(ids.tolist()), strict=True)
    return tuple(Hit(rank, value, clip) for rank, (value, clip) in enumerate(found, 1))
