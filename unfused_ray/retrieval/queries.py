"""Queries of a search: a wave embedded by the index's encoder, a clip of the index, or the clips of a label."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unfused_ray import storage
from unfused_ray.audio.decode import AudioError, decode
from unfused_ray.embedding.clips import read_out
from unfused_ray.embedding.waves import embed_waves
from unfused_ray.models.export import load_encoder, read_description
from unfused_ray.retrieval.audio import warn_of
from unfused_ray.retrieval.catalogue import SAME_SECONDS, Clip
from unfused_ray.retrieval.collection import Collection
from unfused_ray.retrieval.learn import first_of_recordings
from unfused_ray.retrieval.space import has_direction, unit

logger = logging.getLogger(__name__)

_ROUNDING = 1e-4
"""Difference in a similarity that other batch sizes make."""
_NEAREST, _SHOWN = 64, 3
_MAX_SECONDS = 600.0


@dataclass(frozen=True)
class Query:
    """A vector to search for, and the clips that it was made from."""

    text: str
    """The query in words."""
    vector: np.ndarray
    """(C,) float32, of length 1, in the space."""
    own: np.ndarray
    """(N,) bool: vectors of the clips that the query was made from, which are not returned as hits."""
    pcm: np.ndarray | None = None
    """(samples,) int16 of a wave; None for other queries."""
    sample_rate: int = 0
    """Rate of the samples in Hz."""
    clip: Clip | None = None
    """The clip of a key query; None for other queries."""


def ask_key(collection: Collection, key: str, source: str, first: float, last: float | None) -> Query:
    """Make the query for sounds like a clip of the index, or like a recording whose pieces are clips.

    Args:
        collection: the index.
        key: key of the clip, or of the recording.
        source: name of its source; '' if only one source has the key.
        first, last: start and end in the clip, or in the recording, in seconds; all windows that overlap this range
            make the query.

    Raises:
        ValueError: there is no such clip, or no window of it in these seconds.
    """
    ids = collection.clips.find(key, source)
    own = np.isin(collection.clips.recordings, collection.clips.recordings[ids])
    clips = sorted(collection.clips.clips(ids.tolist()), key=lambda clip: _times_in(clip, key))
    times = [_times_in(clip, key) for clip in clips]
    end = float("inf") if last is None else last
    inside = [
        clip
        for clip, (start, stop) in zip(clips, times, strict=True)
        if min(stop, end) - max(start, first) > SAME_SECONDS
    ]
    if not inside:
        raise ValueError(
            f"from={first:g} and to={end:g} select nothing of {key}, whose vectors cover the seconds "
            f"{times[0][0]:g} to {times[-1][1]:g}"
        )
    vector_C = unit(collection.vectors(np.array([clip.id for clip in inside])).mean(axis=0))
    several = f", mean of {len(inside)} vectors" if len(inside) > 1 else ""
    return Query(f"{key} of {inside[0].source}{several}", vector_C, own, clip=inside[0])


def _times_in(clip: Clip, key: str) -> tuple[float, float]:
    """Return start and end of a vector's audio in seconds, within the clip or within the recording of this key."""
    first = clip.piece_seconds if clip.recording == key else 0.0
    return first + clip.start_seconds, first + clip.end_seconds


def ask_label(collection: Collection, label: str) -> Query:
    """Make the query for sounds like the clips of a label, without the label: the mean of the clips' vectors.

    Raises:
        ValueError: no clip has the label.
    """
    carries = collection.clips.labelled([label])
    vector_C = unit(collection.vectors(np.flatnonzero(carries)).mean(axis=0))
    own = np.isin(collection.clips.recordings, collection.clips.recordings[carries])
    return Query(f"label {label}, mean of {int(carries.sum()):,} vectors, which are left out", vector_C, own)


def ask_wave(collection: Collection, uri: str, encoder_uri: str, first: float, last: float | None) -> Query:
    """Make the query for sounds like an audio file.

    Args:
        collection: the index.
        uri: path or URI of the file.
        encoder_uri: path or URI of the encoder; '' takes the encoder of the vectors from its recorded place.
        first, last: start and end in the file, in seconds; None is the end of the file.

    Raises:
        FileNotFoundError: the file or the encoder is missing.
        ValueError: the encoder is not that of the index, or the file holds no audio in this range.
    """
    encoder_uri = encoder_uri or collection.manifest.encoder.uri
    sample_rate = _described(collection, encoder_uri)["front_end"]["sample_rate"]
    pcm = _read(uri, sample_rate, first, last)  # first, because loading torch and the encoder takes seconds
    encoder = load_encoder(encoder_uri)
    ((_, layers),) = embed_waves(encoder, [(0, pcm)])
    vector_1D = read_out(layers, encoder.encoder.config.cut, collection.manifest.encoder.readout)
    if not has_direction(vector_1D)[0]:
        raise ValueError(f"{uri}: its vector has no direction, so nothing is near to it")
    _warn_of_length(collection, len(pcm) / sample_rate)
    vector_C = collection.trained.space.apply(vector_1D)[0]
    return Query(storage.name(uri), vector_C, same_audio(collection, vector_C, uri), pcm, sample_rate)


def _described(collection: Collection, uri: str) -> dict[str, Any]:
    """Return the description of the encoder, which must be the encoder of the index."""
    made_with = collection.manifest.encoder
    try:
        description = read_description(uri)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}. The index was made with an encoder at that place: name its present place with --encoder …"
        ) from error
    if (found := description["sha256"]) != made_with.sha256:
        raise ValueError(
            f"encoder={uri} is not the one that made the vectors of {collection.manifest.uri} ({found[:12]}, not "
            f"{made_with.sha256[:12]}): name that one with --encoder …"
        )
    return description


def _read(uri: str, sample_rate: int, first: float, last: float | None) -> np.ndarray:
    with storage.open_input(uri) if not storage.is_local(uri) else Path(uri).open("rb") as file:
        try:
            seconds = None if last is None else last - first
            decoded = decode(file, sample_rate, round(_MAX_SECONDS * sample_rate), first, seconds, warn_of(uri))
            pcm = next(decoded)
            if next(decoded, None) is not None:
                raise ValueError(
                    f"{uri} is longer than {_MAX_SECONDS:g} s, the most for one vector: name the part that you mean "
                    "with --from and --to"
                )
            return pcm
        except AudioError as error:
            seconds_on = f" from second {first:g} on" if first else ""
            raise ValueError(f"{uri} cannot be a question{seconds_on}: {error.reason} ({error.detail})") from error


def _warn_of_length(collection: Collection, seconds: float) -> None:
    windows = [source.window_seconds for source in collection.manifest.sources if source.window_seconds]
    if windows and seconds > 2 * max(windows):
        logger.warning(
            "the question is %.2f s long, but vectors of the index cover windows of %g s: name the part that you mean "
            "with --from and --to",
            seconds,
            max(windows),
        )


def same_audio(collection: Collection, vector_C: np.ndarray, uri: str) -> np.ndarray:
    """Find the recordings that are the file itself, by the place of their audio or an equal vector: (N,) bool.

    Args:
        collection: the index.
        vector_C: vector of the file, in the space.
        uri: path or URI of the file.
    """
    trained, clips = collection.trained, collection.clips
    everything = np.ones(clips.num_vectors, bool)
    ids, similarities = collection.stored.search(vector_C, _NEAREST, everything, collection.stored.num_lists)
    as_kept_C = trained.decode(*trained.encode(vector_C[None]))[0]
    as_near = ids[similarities >= float(as_kept_C @ vector_C) - _ROUNDING]
    # Rounded codes of other clips may be as near to the query as its own, so the stored vectors must be equal too.
    equal = as_near[collection.vectors(as_near) @ unit(as_kept_C) >= 1 - _ROUNDING]
    same = np.union1d(equal, clips.at(uri))
    if not len(same):
        return ~everything
    one_each = first_of_recordings(same, clips.recordings, len(same))
    shown = ", ".join(clip.recording for clip in clips.clips(one_each[:_SHOWN].tolist()))
    more = f" and {len(one_each) - _SHOWN:,} more" if len(one_each) > _SHOWN else ""
    logger.info("left out, because they are the question itself: %s%s", shown, more)
    return np.isin(clips.recordings, clips.recordings[same])
