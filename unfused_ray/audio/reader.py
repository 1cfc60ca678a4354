"""Chooses the reader of an audio file by its content, and reads all of its samples."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import NamedTuple

import soundfile

from unfused_ray.audio import libsndfile, mpeg, ogg
from unfused_ray.audio.blocks import Block, is_much, skip, warn_of_length
from unfused_ray.audio.chunks import CHUNKED, Samples, find_samples
from unfused_ray.audio.ends import End, end_of
from unfused_ray.audio.errors import AudioError, Warn
from unfused_ray.audio.formats import find_behind_flac, is_tag_to_the_end, recognise
from unfused_ray.audio.mp4 import end_of_movie
from unfused_ray.audio.window import Window

_READ_AHEAD = 1 << 13  # bytes that libFLAC may have read after the last frame
_OWN_TAGS = ("mp3", "aac", "flac")  # formats whose readers know ID3 tags
_FLAC = b"fLaC\0\0\0\x22"
_SCANNED = 1 << 20  # bytes


class _Part(NamedTuple):
    """One of the files that are joined end to end in a file; most files have one part."""

    window: Window
    name: str | None
    """FFmpeg's name of its format; None if the format is unknown."""
    samples: Samples | None
    """The samples, if the file consists of chunks, as WAV does."""
    link: ogg.Link | None
    """The link of the chain, if the file is Ogg."""
    end: End


class _Following(NamedTuple):
    """The bytes after a FLAC file."""

    window: Window
    start: float
    """Seconds of these bytes to leave out."""


def read(window: Window, start: float, warn: Warn) -> Iterator[Block]:
    """Read an audio file from second ``start`` to the end of its content, whatever length its header claims.

    libsndfile reads WAV, AIFF and similar formats, FLAC, and Ogg files of one stream. FFmpeg reads all other files, and
    those that libsndfile cannot read. Files that are joined end to end are read one after the other.

    Args:
        window: the file.
        start: first second.
        warn: called with each difference between the file and its header.

    Raises:
        AudioError: wrong format, unreadable or empty; may be raised after good blocks.
    """
    window.refuse_failed()
    parts = list(_parts(window))
    if len(parts) == 1:
        yield from _in_a_row(parts, start, warn)
    else:
        if any(part.link is None for part in parts):  # chained Ogg files usually belong together
            kind = "chunks of samples" if parts[0].end is parts[-1].end else "files"
            warn("joined", f"{len(parts)} {kind} lie end to end in it; they are read one after the other")
        yield from skip(_in_a_row(parts, 0.0, warn), start)
    window.refuse_failed()
    if grown := window.growth():
        warn("changed while read", f"it had {window.size} bytes at first, which were read, and {grown:+d} afterwards")


def _parts(window: Window) -> Iterator[_Part]:
    place = 0
    while place < window.size or place == 0:
        rest = window.part(place, window.size)
        name, tags = recognise(rest)
        if tags and name is not None and name not in _OWN_TAGS:
            place += tags
            rest = window.part(place, window.size)
        chunks = find_samples(rest) if name in CHUNKED else []
        link = ogg.examine(rest) if name == "ogg" else None
        if chunks:
            end = chunks[0].end
        elif link:
            end = link.end
        else:
            end = end_of_movie(rest) if name == "mov" else end_of(rest, name)
        for samples in chunks:
            yield _Part(rest.part(samples.begin, end.place, samples.patches), name, samples, None, end)
        if not chunks:
            yield _Part(rest.part(0, end.place), name, None, link, end)
        place += max(1, end.place)


def _in_a_row(parts: list[_Part], start: float, warn: Warn) -> Iterator[Block]:
    """Read the parts in turn, the first from second ``start``; after a FLAC part, further parts may be found."""
    for part in parts:
        following = yield from _read_part(part, start, warn)
        if following is None:
            continue
        start = 0.0
        if following.start:
            yield from skip(_in_a_row(list(_parts(following.window)), 0.0, warn), following.start)
        else:
            parts.extend(_parts(following.window))


def _read_part(part: _Part, start: float, warn: Warn) -> Generator[Block, None, _Following | None]:
    window, name = part.window, part.name
    if part.link and part.link.problem:
        warn(*part.link.problem)
    if is_much(part.end.unknown, window.size):
        warn("cut short", f"its last {part.end.unknown} of {window.size} bytes are not part of it")
    if is_much(part.end.missing, window.size):
        warn("cut short", f"its header says {part.end.missing} bytes more than the {window.size} it has")
    if name is None and window.read_at(0, 1) in (b"\xff", b"I"):  # libsndfile takes these for MPEG audio
        raise AudioError("wrong format", "it is of no known format, and no frames of MPEG audio lie in a row in it")
    if part.samples and part.samples.is_long:
        warn("longer than its header", f"it holds {part.samples.held} bytes of samples")
    if part.samples and part.samples.unread:
        warn("cut short", f"it has {1 + len(part.samples.unread)} chunks of samples, of which the first is read")
    file = None if _is_for_ffmpeg(part) else _open(window, name)
    if file is None:
        assert name is not None  # otherwise it would have been opened
        yield from _by_ffmpeg(window, name, start, warn)
        return None
    with file:
        length = file.frames / file.samplerate
        if part.samples and part.samples.held and part.samples.claimed is not None:
            warn_of_length(length * part.samples.claimed / part.samples.held, length, 0.0, warn)
        begin = start if _finds_its_place(file, part, start, length) else 0.0
        yield from skip(_by_libsndfile(file, part, begin, warn), start - begin)
        if name == "flac":
            return (yield from _behind_flac(window, start, length, warn))
    return None


def _is_for_ffmpeg(part: _Part) -> bool:
    if part.samples:
        return part.samples.is_long  # libsndfile reads 4 GB of these
    return part.name not in (None, "flac") and not (part.link and part.link.is_plain)


def _finds_its_place(file: soundfile.SoundFile, part: _Part, start: float, length: float) -> bool:
    """Tell whether libsndfile can begin at second ``start`` of a file of ``length`` seconds by its header.

    It cannot enter some codecs, such as G.721. In joined FLAC files libFLAC looks for a frame's number in all of them.
    The end of a FLAC file, where another may begin, is only known when all of its frames have been read.
    """
    if part.name == "flac" and start:
        return start < length and not _another_flac_follows(part.window)
    return file.seekable() or not start


def _another_flac_follows(window: Window) -> bool:
    place, frames = window.tell(), _begin_of_frames(window)
    starts = range(frames, window.size, _SCANNED)
    found = any(_FLAC in window.read_at(each, _SCANNED + len(_FLAC) - 1) for each in starts)
    window.seek(place)  # libsndfile reads on from there
    return found


def _by_libsndfile(file: soundfile.SoundFile, part: _Part, start: float, warn: Warn) -> Iterator[Block]:
    """Read an open file; if libsndfile fails, as with Opus of eight channels, FFmpeg continues."""
    seconds, is_read_on = 0.0, False
    try:
        for block in libsndfile.read(file, part.window, start, warn):
            seconds += len(block.wave) / block.rate
            yield block
    except AudioError:
        part.window.refuse_failed()
        if part.name is None or part.name == "flac":
            raise
        for block in _by_ffmpeg(part.window, part.name, start + seconds, warn):
            is_read_on = True
            yield block
        if not is_read_on:
            raise


def _behind_flac(window: Window, start: float, length: float, warn: Warn) -> Generator[Block, None, _Following | None]:
    """Read frames beyond the ``length`` in the header of a FLAC file, or return the file that follows it."""
    place = window.tell()
    begin, end = max(1, place - _READ_AHEAD), place + _READ_AHEAD
    following = find_behind_flac(window, begin, end)
    if following is not None and following < (frames := _begin_of_frames(window)):
        following = find_behind_flac(window, frames, end)
    if following is not None:
        warn("joined", f"another file begins at byte {following}; it is read too")
        return _Following(window.part(following, window.size), max(0.0, start - length))
    if window.size > place and not is_tag_to_the_end(window, begin, end):
        seconds = 0.0
        for block in _by_ffmpeg(window, "flac", max(start, length), warn):
            seconds += len(block.wave) / block.rate
            yield block
        warn_of_length(length, max(start, length) + seconds, 0.0, warn)
        if not seconds and is_much(window.size - place, window.size):
            warn("cut short", f"its last {window.size - place} of {window.size} bytes are no FLAC")
    return None


def _begin_of_frames(window: Window) -> int:
    """Return the place after the headers of a FLAC file, which may hold a picture or a WAV header."""
    place, is_last = mpeg.after_tags(window) + 4, False
    while not is_last and len(head := window.read_at(place, 4)) == 4:
        place += 4 + int.from_bytes(head[1:], "big")
        is_last = bool(head[0] & 128)
    return place


def _by_ffmpeg(window: Window, name: str, start: float, warn: Warn) -> Iterator[Block]:
    from unfused_ray.audio import ffmpeg  # 50 ms and 20 MB that WAV and FLAC can do without

    # From the beginning, because few containers and codecs allow a start at a given sample.
    return skip(ffmpeg.read(window, name, warn), start)


def _open(window: Window, name: str | None) -> soundfile.SoundFile | None:
    """Open a file with libsndfile; None if libsndfile cannot, or a FLAC file states no length, so that FFmpeg may.

    Raises:
        AudioError: libsndfile cannot open it, and the format is unknown.
    """
    try:
        file = libsndfile.open_file(window)
    except AudioError:
        window.refuse_failed()
        if name is None:
            raise
        return None
    if name == "flac" and file.frames > libsndfile.NO_LENGTH:
        file.close()
        return None
    return file
