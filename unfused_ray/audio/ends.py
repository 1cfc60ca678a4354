"""Finds where files that FFmpeg reads end: another file, or bytes that no reader knows, may follow."""

from __future__ import annotations

from typing import NamedTuple

from unfused_ray.audio import mpeg
from unfused_ray.audio.formats import FIRST_BYTES, is_file_at, transport_packets
from unfused_ray.audio.window import Window

_HEADER, _SEGMENT, _CLUSTER = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
_INSIDE = (_SEGMENT, _CLUSTER, b"\xa3", b"\xa0", b"\xe7", b"\xec", b"\xbf")  # elements that need no second check
_MOST_ELEMENTS = 1 << 20
_FLV_TAGS, _ENCRYPTED = (8, 9, 18), 32
_END_OF_STREAM, _PACK = 0xB9, 0xBA  # codes of an MPEG program stream
_NEAR = 1 << 16


class End(NamedTuple):
    """The end of a file's audio."""

    place: int
    """Place of the next joined file; the window's end if there is none."""
    unknown: int = 0
    """Bytes after the file that are neither a part of it, nor a tag, nor another file."""
    missing: int = 0
    """Bytes that the header claims and the file lacks."""


def end_at(window: Window, place: int) -> End:
    """Return the end of a file whose content ends at ``place``, by the bytes that follow."""
    if place >= window.size:
        return End(window.size)
    if is_file_at(window, place):
        return End(place)
    return End(window.size, max(0, window.size - mpeg.after_tags(window, place)))


def end_of(window: Window, name: str | None) -> End:
    """Return the end of a file whose format FFmpeg calls ``name``; the window's end if it cannot be found."""
    finders = {
        "avi": end_of_avi,
        "flv": end_of_flv,
        "matroska": end_of_matroska,
        "mpeg": end_of_program_stream,
        "mpegts": end_of_transport_stream,
    }
    return finders[name](window) if name in finders else End(window.size)


def end_of_avi(window: Window) -> End:
    """Find the end of an AVI file, which is one RIFF chunk, or several if the file is long."""
    place = 0
    while (head := window.read_at(place, 12))[:4] == b"RIFF" and head[8:] == (b"AVIX" if place else b"AVI "):
        size = int.from_bytes(head[4:8], "little")
        if size <= len(head):  # not known, as in a file of a recorder that crashed
            return End(window.size)
        place += 8 + size + size % 2
    return end_at(window, place)._replace(missing=max(0, place - window.size))


def end_of_matroska(window: Window) -> End:
    """Find the end of a Matroska or WebM file by its elements, entering those without a size, as in live recordings."""
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


def end_of_flv(window: Window) -> End:
    """Find the end of an FLV file by its tags of sound, pictures and scripts."""
    place = int.from_bytes(window.read_at(5, 4), "big") + 4
    for _ in range(_MOST_ELEMENTS):
        head = window.read_at(place, 4)
        if len(head) < 4 or head[0] & ~_ENCRYPTED not in _FLV_TAGS:
            return end_at(window, place)
        place += 15 + int.from_bytes(head[1:], "big")
    return End(window.size)


def end_of_program_stream(window: Window) -> End:
    """Find the end of an MPEG program stream by its packets."""
    place = 0
    for _ in range(_MOST_ELEMENTS):
        head = window.read_at(place, 14)
        if len(head) < 4 or head[:3] != b"\0\0\x01" or head[3] < _END_OF_STREAM:
            break
        if head[3] == _END_OF_STREAM:
            place += 4
        elif head[3] == _PACK:
            place += 14 + (head[-1] & 7) if head[4] & 0xC0 == 0x40 else 12
        else:
            place += 6 + int.from_bytes(head[4:6], "big")
    else:
        return End(window.size)
    end = end_at(window, place)
    if end.place < window.size:
        return end
    goes_on = b"\0\0\x01\xba" in window.read_at(max(place, window.size - _NEAR), _NEAR)
    return End(window.size) if goes_on else end


def end_of_transport_stream(window: Window) -> End:
    """Find the end of an MPEG transport stream, whose packets have one size, by bisection."""
    first, size = transport_packets(window.read_at(0, FIRST_BYTES)) or (0, 188)
    low, high = 0, window.size // size
    if not high or window.read_at(first + (high - 1) * size, 1) == b"\x47":
        return end_at(window, high * size)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if window.read_at(first + middle * size, 1) == b"\x47" else (low, middle)
    end = end_at(window, high * size)
    if end.place < window.size:
        return end
    last = window.read_at(max(high * size, window.size - 3 * size), 3 * size)
    goes_on = any(last[place] == last[place + size] == 0x47 for place in range(min(size, len(last) - size)))
    return End(window.size) if goes_on else end
