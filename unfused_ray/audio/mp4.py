"""Walks the boxes of MP4 and QuickTime files before FFmpeg reads them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from unfused_ray.audio.ends import End, end_at
from unfused_ray.audio.errors import AudioError
from unfused_ray.audio.formats import is_file_at
from unfused_ray.audio.window import Window

_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf")
_OUTERMOST = (b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"styp", b"free", b"skip", b"wide", b"uuid", b"meta")
_COUNTS = {b"stsz": 8, b"trun": 4}  # boxes that claim a number of samples, and its place in their body
_ONE = b"\0\0\0\1"
_MOST_BOXES = 1 << 20


class _Box(NamedTuple):
    kind: bytes
    place: int
    body: int
    end: int
    is_outermost: bool


def end_of_movie(window: Window) -> End:
    """Find the end of the first movie.

    Raises:
        AudioError: a box claims more samples than the file has bytes; FFmpeg would allocate a table for them. It
            allocates none for sound whose samples all have one size and last one tick: QuickTime's compressed sound,
            such as IMA 4:1, counts the samples of the decoded sound.
    """
    name, handler, count, has_table, is_by_chunks = "", b"", 0, False, False
    for box in _boxes(window):
        if box.place and box.is_outermost and box.kind not in _OUTERMOST:
            is_box = box.body <= box.end and all(32 <= byte < 127 for byte in box.kind)
            if not is_box or is_file_at(window, box.place):
                return end_at(window, box.place)
        if box.kind == b"trak":
            count, is_by_chunks = 0, False
        elif box.kind == b"hdlr" and (kind := window.read_at(box.body + 8, 4)) in (b"soun", b"vide"):
            handler = kind
        elif box.kind == b"stts":
            durations = window.read_at(box.body + 4, 12)
            is_by_chunks = handler == b"soun" and durations[:4] == durations[8:] == _ONE
        elif box.kind in _COUNTS:
            count = int.from_bytes(window.read_at(box.body + _COUNTS[box.kind], 4), "big")
            name, has_table = box.kind.decode(), box.kind == b"trun" or not any(window.read_at(box.body + 4, 4))
        if count > window.size and (has_table or not is_by_chunks):
            raise AudioError("unreadable", f"its {name} claims {count} samples, it has {window.size} bytes")
    return End(window.size)


def _boxes(window: Window) -> Iterator[_Box]:
    """Yield the boxes in order, parents before children; as in FFmpeg, no box extends beyond its parent."""
    place, ends = 0, [window.size]
    for _ in range(_MOST_BOXES):
        while ends and place >= ends[-1]:
            ends.pop()
        if not ends:
            return
        head = window.read_at(place, 16)
        size, kind, long_size = struct.unpack(">I4sQ", head.ljust(16, b"\0"))
        body = place + (16 if size == 1 else 8)
        end = ends[-1] if size == 0 else place + (long_size if size == 1 else size)
        if end < body:  # not a box: the rest of the parent is left out
            if len(ends) == 1:
                yield _Box(b"", place, body, place, is_outermost=True)
            place = ends[-1]
            continue
        end = min(end, ends[-1])
        yield _Box(kind, place, body, end, is_outermost=len(ends) == 1)
        if kind in _PARENTS:
            ends.append(end)
        place = body if kind in _PARENTS else end
