"""Chooses the reader of an audio file by its content, and reads all of its samples."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

import soundfile

from unfused_ray.audio import libsndfile, mpeg, ogg
from unfused_ray.audio.blocks import Block, skip, warn_of_length
from unfused_ray.audio.chunks import CHUNKED, Samples, find_samples
from unfused_ray.audio.errors import AudioError, Warn
from unfused_ray.audio.formats import recognise
from unfused_ray.audio.mp4 import end_of_movie
from unfused_ray.audio.window import Window

_READ_AHEAD = 1 << 18  # bytes that libFLAC may have read behind the last frame
_FLAC = b"fLaC\x00\x00\x00\x22"  # the beginning of a FLAC file, up to the length of its first header


class _Part(NamedTuple):
    """One of the files that lie end to end in a file; most files have one part."""

    window: Window
    name: str | None
    """FFmpeg's name of its format; None for one that is not known."""
    samples: Samples | None
    """Of a file of chunks."""
    link: ogg.Link | None
    """Of an Ogg file."""


def read(window: Window, start: float, warn: Warn) -> Iterator[Block]:
    """Read an audio file from second ``start`` to the end of its content, whatever its header says of its length.

    libsndfile reads WAV, AIFF and their like, FLAC, and Ogg files of one stream; FFmpeg reads all the rest, and what
    libsndfile cannot. Files that lie end to end are read one after the other.

    Args:
        window: the file.
        start: first second.
        warn: is told how the file differs from what its header says.

    Raises:
        AudioError: wrong format, unreadable or empty; it may come after good blocks.
    """
    window.refuse_failed()
    parts = list(_parts(window))
    if len(parts) == 1:
        yield from _read_part(parts[0], start, warn)
    else:
        if parts[0].link is None:  # chained Ogg files are one as a rule
            warn("joined", f"{len(parts)} files lie end to end in it; they are read one after the other")
        yield from skip(chain.from_iterable(_read_part(part, 0.0, warn) for part in parts), start)
    window.refuse_failed()
    if grown := window.growth():
        warn("changed while read", f"it had {window.size} bytes at first, which were read, and {grown:+d} afterwards")


def _parts(window: Window) -> Iterator[_Part]:
    place = 0
    while place < window.size or place == 0:
        rest = window.part(place, window.size)
        name = recognise(rest)
        samples = find_samples(rest) if name in CHUNKED else None
        link = ogg.examine(rest) if name == "ogg" else None
        end = samples.end if samples else link.end if link else end_of_movie(rest) if name == "mov" else rest.size
        part = rest.part(samples.begin, end, samples.patches) if samples else rest.part(0, end)
        yield _Part(part, name, samples, link)
        place += max(1, end)


def _read_part(part: _Part, start: float, warn: Warn) -> Iterator[Block]:
    window, name = part.window, part.name
    if part.link and part.link.problem:
        warn(*part.link.problem)
    if name is None and window.read_at(0, 3)[:1] in (b"\xff", b"I"):  # which libsndfile takes for MPEG audio
        raise AudioError("wrong format", "it is of no known format, and no frames of MPEG audio lie in a row in it")
    file: soundfile.SoundFile | None = None
    if name is None:
        file = libsndfile.open_file(window)
    elif part.samples and part.samples.is_long:  # of which libsndfile reads 4 GB
        warn("longer than its header", f"it holds {part.samples.held} bytes of samples")
    elif name == "flac" or part.samples or (part.link and part.link.is_plain):
        file = _open(window)
    if file is None or (name == "flac" and file.frames > libsndfile.NO_LENGTH):
        assert name is not None  # or it would have been opened
        yield from _by_ffmpeg(window, name, start, warn)
        return
    with file:
        length = file.frames / file.samplerate
        if part.samples and part.samples.held and part.samples.claimed is not None:
            warn_of_length(length * part.samples.claimed / part.samples.held, length, 0.0, warn)
        yield from libsndfile.read(file, window, start, warn)
        if name == "flac":
            yield from _behind_flac(window, start, length, warn)


def _behind_flac(window: Window, start: float, length: float, warn: Warn) -> Iterator[Block]:
    """Read on where libFLAC has read the ``length`` that the header states: another file, or more frames."""
    place = window.tell()
    begin = max(mpeg.after_tags(window) + 1, place - _READ_AHEAD)
    following = window.read_at(begin, place + _READ_AHEAD - begin).find(_FLAC)
    if following >= 0:
        warn("joined", f"another FLAC file begins at byte {begin + following}; it is read too")
        yield from read(window.part(begin + following, window.size), max(0.0, start - length), warn)
    elif window.size - place > _READ_AHEAD:
        seconds = 0.0
        for block in _by_ffmpeg(window, "flac", max(start, length), warn):
            seconds += len(block.wave) / block.rate
            yield block
        warn_of_length(length, max(start, length) + seconds, 0.0, warn)


def _by_ffmpeg(window: Window, name: str, start: float, warn: Warn) -> Iterator[Block]:
    from unfused_ray.audio import ffmpeg  # 50 ms and 20 MB that WAV and FLAC do without

    # From the beginning, because few containers and codecs can be entered at a sample.
    return skip(ffmpeg.read(window, name, warn), start)


def _open(window: Window) -> soundfile.SoundFile | None:
    """Open a file by libsndfile; None if it cannot."""
    try:
        return libsndfile.open_file(window)
    except AudioError:
        window.refuse_failed()
        return None
