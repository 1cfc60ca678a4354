"""Decodes a fetched clip into pieces of bounded length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

import numpy as np

from unfused_ray.audio.decode import AudioError, decode
from unfused_ray.audio.errors import WarningReason
from unfused_ray.data.parts.rejects import Reject, Warned


class Piece(NamedTuple):
    """A whole clip, or a part of a long one."""

    key: str
    """Key of the clip; for later pieces ``key@10`` (from second 10) …"""
    start: int
    """Its first sample, counted from the start of the clip."""
    pcm: np.ndarray
    """``(samples,)`` int16."""


def pieces(
    item: dict[str, Any],
    source: IO[bytes] | AudioError,
    sample_rate: int,
    max_seconds: float,
    warn: Callable[[Warned], object] = lambda warned: None,
) -> Iterator[Piece | Reject]:
    """Decode a clip piece by piece; if decoding fails, a reject comes last.

    Args:
        item: row of ``ITEMS``.
        source: the clip's bytes, or the error that it is set aside with, from :func:`fetch`.
        sample_rate: sample rate of the pieces, in Hz.
        max_seconds: length of a piece; the last may be shorter.
        warn: called with each fault of a clip that is used nevertheless.

    Raises:
        OSError: a network folder does not answer, or the system lacks memory; names the file.
    """
    max_samples = round(max_seconds * sample_rate)
    piece_key = key = item["key"]

    def warn_of_clip(reason: WarningReason, detail: str) -> None:
        warn(Warned(key, reason, detail))

    try:
        if isinstance(source, AudioError):
            raise source
        start_second, seconds = item["start"] or 0.0, item["seconds"]
        decoded = decode(source, sample_rate, max_samples, start_second, seconds, warn_of_clip)
        for number, pcm in enumerate(decoded):
            start = number * max_samples
            piece_key = f"{key}@{start / sample_rate:.10g}" if number else key
            yield Piece(piece_key, start, pcm)
    except AudioError as error:
        yield Reject(piece_key, error.reason, error.detail)
    except OSError as error:
        error.filename = error.filename or item["uri"]
        raise
