"""Reads the audio of an index's clips from its place: files, tars, Parquet, or shards."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from unfused_ray.audio.decode import AudioError, decode
from unfused_ray.audio.errors import Warn, WarningReason
from unfused_ray.data.sources.fetch import fetch
from unfused_ray.data.sources.items import ITEMS, Listing
from unfused_ray.retrieval.catalogue import Clip

logger = logging.getLogger(__name__)


def warn_of(name: str) -> Warn:
    """Return a function that logs the faults of audio that is used nevertheless, with the name of its file."""

    def warn(reason: WarningReason, detail: str) -> None:
        logger.warning("%s: %s: %s", name, reason, detail)

    return warn


def read_audio(clips: Sequence[Clip], sample_rate: int, max_seconds: float) -> dict[int, np.ndarray | str]:
    """Decode the beginning of each vector's audio.

    Args:
        clips: clips of an index; a file or row group that several clips share is opened once.
        sample_rate: sample rate of the result, in Hz.
        max_seconds: longest audio to decode of each clip; the rest is left out.

    Returns:
        (samples,) int16 by id, or a sentence that says why the audio cannot be read.
    """
    ordered = sorted(clips, key=lambda clip: (clip.place["uri"], clip.place["row_group"] or 0, clip.place["row"] or 0))
    rows = [{**clip.place, "key": clip.key} for clip in ordered]
    items: pa.Table = Listing.from_rows(rows).items if rows else ITEMS.empty_table()
    found: dict[int, np.ndarray | str] = {}
    try:
        found.update(_decoded(ordered, items, sample_rate, max_seconds))
    except OSError as error:  # its storage does not answer; the hits are worth showing without their audio
        for clip in ordered:
            found.setdefault(clip.id, f"its audio cannot be read here: {error}")
    return found


def _decoded(
    ordered: Sequence[Clip], items: pa.Table, sample_rate: int, max_seconds: float
) -> Iterator[tuple[int, np.ndarray | str]]:
    for clip, (item, source) in zip(ordered, fetch(items), strict=True):
        start = (item["start"] or 0.0) + clip.start_seconds
        seconds = min(clip.end_seconds - clip.start_seconds, max_seconds)
        try:
            if isinstance(source, AudioError):
                raise source
            max_samples = max(1, round(seconds * sample_rate))
            decoded = decode(source, sample_rate, max_samples, start, seconds, warn_of(f"{clip.key} of {clip.source}"))
            yield clip.id, next(iter(decoded))
        except AudioError as error:
            yield clip.id, f"its audio cannot be read here: {error.reason} ({error.detail})"
