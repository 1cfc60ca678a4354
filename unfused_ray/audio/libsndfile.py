"""Reads audio with libsndfile: WAV, AIFF and similar formats, FLAC, and Ogg files of one stream."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import soundfile

from unfused_ray.audio.blocks import Block, block_length, warn_of_length
from unfused_ray.audio.errors import AudioError, Warn
from unfused_ray.audio.formats import stand_in
from unfused_ray.audio.window import Window

_UNRECOGNISED = 1  # SF_ERR_UNRECOGNISED_FORMAT
_SHOWN = 32  # bytes of an unknown file that a message quotes
NO_LENGTH = 2**62
"""If a header gives no length, ``frames`` is larger than this."""


def open_file(window: Window) -> soundfile.SoundFile:
    """Open an audio file; refuse MPEG audio, which libsndfile reads only as far as the first header claims.

    Raises:
        AudioError: wrong format, unreadable or empty.
    """
    with _as_reason(window):
        window.seek(0)
        file = soundfile.SoundFile(window)
    if file.subtype.startswith("MPEG"):
        file.close()
        raise AudioError("wrong format", f"{file.subtype} in {file.format}")
    return file


def read(file: soundfile.SoundFile, window: Window, start: float, warn: Warn) -> Iterator[Block]:
    """Read from second ``start`` to the end.

    Args:
        file: the open file.
        window: its bytes.
        start: first second.
        warn: called if the file ends before its header says.

    Raises:
        AudioError: unreadable; may be raised after good blocks.
    """
    first = min(round(start * file.samplerate), file.frames)
    with _as_reason(window):
        if first:
            file.seek(first)
        place, length = first, block_length(file.samplerate, file.channels)
        while len(wave := file.read(length, dtype="float32", always_2d=True)):
            window.refuse_failed()
            place += len(wave)
            yield Block(wave, file.samplerate)
    window.refuse_failed()
    if file.frames < NO_LENGTH:
        warn_of_length(file.frames / file.samplerate, place / file.samplerate, 0.0, warn)


@contextmanager
def _as_reason(window: Window) -> Iterator[None]:
    try:
        yield
    except soundfile.LibsndfileError as error:
        window.refuse_failed()
        if error.code == _UNRECOGNISED and not window.seek(0, io.SEEK_END):
            raise AudioError("empty", "it holds no bytes") from error
        if error.code == _UNRECOGNISED:
            head = window.read_at(0, _SHOWN)
            raise AudioError("wrong format", stand_in(head) or f"no known format begins with {head!r}") from error
        raise AudioError("unreadable", error.error_string) from error
