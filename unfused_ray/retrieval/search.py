"""Searches an index: by a file of audio, a clip, a label, or by what marks have taught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from unfused_ray import storage
from unfused_ray.retrieval.catalogue import Filters
from unfused_ray.retrieval.collection import Collection
from unfused_ray.retrieval.hits import Found, Hit
from unfused_ray.retrieval.learn import first_of_recordings, learn, scores
from unfused_ray.retrieval.marks import ids_of, read_marks
from unfused_ray.retrieval.queries import Question, ask_key, ask_label, ask_wave


@dataclass(frozen=True)
class Request:
    """What to search for: exactly one of query, key, label and learn."""

    query: str = ""
    """File of audio, by path or URI."""
    key: str = ""
    """Key of a clip or recording of the index."""
    key_source: str = ""
    """Source of the key, where several have it."""
    label: str = ""
    learn: str = ""
    """CSV file of marks, by path or URI."""
    first: float = 0.0
    """Second of the query or clip that the question begins at."""
    last: float | None = None
    """Second that it ends at; None is the end."""
    encoder: str = ""
    """Encoder of the query; '' is the one that the vectors were made with, where it was."""
    count: int = 20
    """Recordings to find."""
    filters: Filters = field(default_factory=Filters)

    def __post_init__(self) -> None:
        given = [name for name in ("query", "key", "label", "learn") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                f"a search asks one question, not {' and '.join(given) or 'none'}: give an audio file, --key, --label "
                "or --learn"
            )
        if self.count < 1:
            raise ValueError(f"count={self.count} must be at least 1")


def search(collection: Collection, request: Request) -> Found:
    """Find the recordings that are nearest to a question, without the question itself.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: the question, a filter or a mark is of nothing in the index, or the index is damaged.
    """
    allowed_N = collection.clips.allowed(request.filters)
    if request.learn:
        return _learnt(collection, request, allowed_N)
    question = _ask(collection, request)
    ids, similarities = collection.nearest(question.vector, request.count, allowed_N & ~question.own)
    return Found(
        index=collection.manifest.uri,
        question=question.text,
        measure="similarity",
        hits=_hits(collection, ids, similarities.tolist()),
        pcm=question.pcm,
        sample_rate=question.sample_rate,
        clip=question.clip,
    )


def _ask(collection: Collection, request: Request) -> Question:
    if request.query:
        uri = storage.absolute(request.query)
        return ask_wave(collection, uri, request.encoder, request.first, request.last)
    if request.key:
        return ask_key(collection, request.key, request.key_source, request.first, request.last)
    return ask_label(collection, request.label)


def _learnt(collection: Collection, request: Request, allowed_N: np.ndarray) -> Found:
    """The clips that a classifier of marks would keep, and those that it is least sure of; marked ones are neither."""
    marks = read_marks(storage.absolute(request.learn))
    known = ids_of(collection, marks)
    learned = learn(collection, known)
    scores_N, recordings = scores(collection, learned), collection.clips.recordings
    ids = np.flatnonzero(allowed_N & ~np.isin(recordings, recordings[np.fromiter(known, np.int64)]))
    kept = first_of_recordings(ids[np.argsort(-scores_N[ids], kind="stable")], recordings, request.count)
    unsure = first_of_recordings(ids[np.argsort(np.abs(scores_N[ids]), kind="stable")], recordings, request.count)
    probabilities_N = 1 / (1 + np.exp(-scores_N.astype(np.float64)))
    return Found(
        index=collection.manifest.uri,
        question=learned.text,
        measure="probability",
        hits=_hits(collection, kept, probabilities_N[kept].tolist()),
        unsure=_hits(collection, unsure, probabilities_N[unsure].tolist()),
        marks=tuple(marks),
    )


def _hits(collection: Collection, ids: np.ndarray, values: Sequence[float]) -> tuple[Hit, ...]:
    found = zip(values, collection.clips.clips(ids.tolist()), strict=True)
    return tuple(Hit(rank, value, clip) for rank, (value, clip) in enumerate(found, 1))
