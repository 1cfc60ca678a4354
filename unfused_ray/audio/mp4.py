"""Walks the boxes of MP4 and QuickTime files before FFmpeg reads them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from unfused_ray.audio.errors import AudioError
from unfused_ray.audio.window import Window

_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf")
_COUNTS = {b"stsz": 8, b"trun": 4}  # boxes that claim a number of samples, and where in their body
_MOST_BOXES = 1 << 20


class _Box(NamedTuple):
    kind: bytes
    place: int
    body: int
    end: int


def end_of_movie(window: Window) -> int:
    """Return where another file begins behind the first; the end if none does.

    Raises:
        AudioError: a box claims more samples than the file has bytes; FFmpeg would make a table of them.
    """
    for box in _boxes(window):
        if box.kind == b"ftyp" and box.place:
            return box.place
        if box.kind in _COUNTS:
            count = int.from_bytes(window.read_at(box.body + _COUNTS[box.kind], 4), "big")
            if count > window.size:
                name = box.kind.decode()
                raise AudioError("unreadable", f"its {name} claims {count} samples, it has {window.size} bytes")
    return window.size


def _boxes(window: Window) -> Iterator[_Box]:
    """Yield the boxes in their order, parents before their children; as in FFmpeg, none goes beyond its parent."""
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
        if end < body:  # no box: the rest of the parent is left out
            place = ends[-1]
            continue
        end = min(end, ends[-1])
        yield _Box(kind, place, body, end)
        if kind in _PARENTS:
            ends.append(end)
        place = body if kind in _PARENTS else end
