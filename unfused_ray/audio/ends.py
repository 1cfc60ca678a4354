"""Finds where Matroska and AVI files end: another file, or bytes that no reader knows, may lie behind."""

from __future__ import annotations

from typing import NamedTuple

from unfused_ray.audio import mpeg
from unfused_ray.audio.formats import is_file_at
from unfused_ray.audio.window import Window

_HEADER, _SEGMENT, _CLUSTER = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
_INSIDE = (_SEGMENT, _CLUSTER, b"\xa3", b"\xa0", b"\xe7", b"\xec", b"\xbf")  # elements that need no second look
_MOST_ELEMENTS = 1 << 20


class End(NamedTuple):
    """Where a file ends."""

    place: int
    """Place of the next file that is joined to it; the window's end if there is none."""
    unknown: int = 0
    """Bytes behind the file that are neither a part of it, a tag nor another file."""
    missing: int = 0
    """Bytes that the file should have by its header, and has not."""


def end_at(window: Window, place: int) -> End:
    """Return the end of a file that is over at ``place``, by what lies there."""
    if is_file_at(window, place):
        return End(place)
    return End(window.size, max(0, window.size - mpeg.after_tags(window, place)))


def end_of_avi(window: Window) -> End:
    """Find the end of an AVI file, which is one RIFF chunk, or several in a long file."""
    place = 0
    while (head := window.read_at(place, 12))[:4] == b"RIFF" and head[8:] == (b"AVIX" if place else b"AVI "):
        size = int.from_bytes(head[4:8], "little")
        if size <= len(head):  # not known, as of a recorder that crashed
            return End(window.size)
        place += 8 + size + size % 2
    return end_at(window, place)._replace(missing=max(0, place - window.size))


def end_of_matroska(window: Window) -> End:
    """Find the end of a Matroska or WebM file by its elements; those of live files say no size, and are entered."""
    place = 0
    for _ in range(_MOST_ELEMENTS):
        head = window.read_at(place, 12)
        kind_length = 9 - head[0].bit_length() if head else 9
        size_length = 9 - head[kind_length].bit_length() if kind_length < len(head) else 9
        kind = head[:kind_length]
        if kind_length > 4 or size_length > 8 or (place and kind not in _INSIDE and is_file_at(window, place)):
            return end_at(window, place)
        size = int.from_bytes(head[kind_length : kind_length + size_length], "big") % (1 << 7 * size_length)
        place += kind_length + size_length
        if size != (1 << 7 * size_length) - 1:
            place += size
        elif kind not in (_SEGMENT, _CLUSTER):
            break
    return End(window.size)
