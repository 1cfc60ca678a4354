"""Finds the samples of WAV, RF64, W64, AIFF, CAF and AU files, whatever length their headers claim."""

from __future__ import annotations

import struct
from typing import Literal, NamedTuple

from unfused_ray.audio import mpeg
from unfused_ray.audio.blocks import TOLERANCE
from unfused_ray.audio.ends import End, end_at
from unfused_ray.audio.formats import is_file_at
from unfused_ray.audio.window import Window

CHUNKED = ("wav", "w64", "aiff", "caf", "au")
"""Names of the formats that consist of chunks."""

_UNKNOWN = 1 << 16  # a size this close to 2³¹ or 2³² stands for a size that the writer did not know
_MOST_CHUNKS = 1 << 16
_LONGEST_KIND = 1 << 12


class Samples(NamedTuple):
    """The samples of a file that consists of chunks."""

    claimed: int | None
    """Bytes of samples by the header; None if the header leaves the number open."""
    held: int
    """Bytes of samples that the file holds."""
    end: End
    patches: dict[int, bytes]
    """Corrected sizes for the header, which should give ``held``; places are relative to ``begin``."""
    is_long: bool
    """True if there are more samples than the header can express."""
    begin: int = 0
    """Place where the corrected file begins."""
    unread: tuple[tuple[int, int], ...] = ()
    """Places and sizes of further chunks of samples, which no reader reads."""


class _Layout(NamedTuple):
    """The layout of a container's chunks."""

    first: int
    """Place of the first chunk."""
    chunk: str
    """``struct`` format of a chunk's header: its name and its size."""
    samples: bytes
    """Name of the chunk of samples."""
    before: int = 0
    """Bytes of this chunk before the samples."""
    counted: int = 0
    """Bytes of the chunk header that the chunk's size includes."""
    align: int = 1


def find_samples(window: Window) -> list[Samples]:
    """Find the samples of a file chunk by chunk; empty if it is no such file, or has no chunk of samples."""
    head = window.read_at(0, 12)
    if head[:4] == b".snd":
        return [_samples_of_au(window)]
    if (layout := _layout(head)) is None:
        return []
    place, header = layout.first, struct.calcsize(layout.chunk)
    long_size: int | None = None
    kind, is_padded = b"", True
    for _ in range(_MOST_CHUNKS):
        if (chunk := _chunk(window, layout, place)) is None:
            break
        name, size = chunk
        body = place + header
        if name == layout.samples:
            field = place + 4 if layout.counted == 0 else place + 16
            code = layout.chunk[0] + layout.chunk[-1]
            if long_size is not None:  # RF64 stores the size elsewhere
                size, field, code = int.from_bytes(window.read_at(long_size, 8), "little"), long_size, "<Q"
            claimed = _known(size, 8 * struct.calcsize(code))
            claimed = None if claimed is None else max(0, claimed - layout.before - layout.counted)
            samples = _samples(window, layout, body + layout.before, claimed, field, code)
            first = samples if is_padded or not kind else _with_new_header(samples, head, kind, body)
            if not kind or head[:4] not in (b"RIFF", b"RIFX"):
                return [first]
            further = [
                _with_new_header(samples._replace(claimed=size, held=min(size, window.size - place)), head, kind, place)
                for place, size in samples.unread
            ]
            return [each._replace(unread=()) for each in (first, *further)]
        if name == b"ds64":
            long_size = body + 8
        elif name == b"fmt " and size < _LONGEST_KIND:
            kind = window.read_at(place, header + size)
        place = _behind(window, layout, body, size - layout.counted)
        is_padded &= (place - body) % layout.align == 0
    return []


def _with_new_header(samples: Samples, head: bytes, kind: bytes, start: int) -> Samples:
    """Write a new WAV header before the samples, because libsndfile loses its way in chunks without padding.

    The last byte of an odd ``kind`` is left out, so that the header is never longer than the file's own.
    """
    order: Literal["little", "big"] = "little" if head[:4] == b"RIFF" else "big"
    size, half = min(samples.held, 2**32 - 1), (len(kind) - 8) // 2
    header = head + kind[:4] + (2 * half).to_bytes(4, order) + kind[8 : 8 + 2 * half]
    header += b"data" + size.to_bytes(4, order)
    return samples._replace(begin=start - len(header), patches={0: header})


def _samples(window: Window, layout: _Layout, start: int, claimed: int | None, field: int, code: str) -> Samples:
    """Compare the size claimed by the field at ``field`` with the bytes from ``start`` on."""
    further: tuple[tuple[int, int], ...] = ()
    held, end = max(0, window.size - start), End(window.size)
    if claimed is not None and claimed <= held:
        behind = _behind(window, layout, start, claimed)
        if held - claimed <= TOLERANCE * claimed or _follows(window, layout, behind):
            held = claimed
            end, further = _end(window, layout, behind)
    right, most = held + layout.before + layout.counted, 256 ** struct.calcsize(code) - 1
    patches = {} if claimed == held else {field: struct.pack(code, min(right, most))}
    return Samples(claimed, held, end, patches, right > most, unread=further)


def _follows(window: Window, layout: _Layout, place: int) -> bool:
    """Tell whether a file, a chunk, a tag or the end is at ``place``, rather than samples that no header counts."""
    if mpeg.after_tags(window, place) > place or place >= window.size or is_file_at(window, place):
        return True
    chunk = _chunk(window, layout, place)
    return chunk is not None and chunk[1] <= window.size - place


def _end(window: Window, layout: _Layout, place: int) -> tuple[End, tuple[tuple[int, int], ...]]:
    """Return the end of the file after the chunks from ``place`` on, and places and sizes of samples among these."""
    further: list[tuple[int, int]] = []
    for _ in range(_MOST_CHUNKS):
        if place >= window.size or is_file_at(window, place) or (chunk := _chunk(window, layout, place)) is None:
            break
        body = place + struct.calcsize(layout.chunk)
        behind = _behind(window, layout, body, chunk[1] - layout.counted)
        if chunk[0] == layout.samples:
            if chunk[1] > TOLERANCE * window.size:
                further.append((body, chunk[1]))
        elif behind > window.size + layout.align:  # it claims more bytes than there are: text that looks like a chunk
            break
        place = behind
    return end_at(window, place), tuple(further)


def _samples_of_au(window: Window) -> Samples:
    start, size = struct.unpack(">II", window.read_at(4, 8).ljust(8, b"\0"))
    layout = _Layout(start, ">4sI", b"")
    return _samples(window, layout, start, _known(size, 32), 8, ">I")


def _layout(head: bytes) -> _Layout | None:
    if head[:4] in (b"RIFF", b"RF64", b"BW64"):
        return _Layout(12, "<4sI", b"data", align=2)
    if head[:4] == b"RIFX":
        return _Layout(12, ">4sI", b"data", align=2)
    if head[:4] == b"FORM":
        return _Layout(12, ">4sI", b"SSND", before=8, align=2)
    if head[:4] == b"caff":
        return _Layout(8, ">4sQ", b"data", before=4)
    if head[:4] == b"riff":
        return _Layout(40, "<4s12xQ", b"data", counted=24, align=8)
    return None


def _known(size: int, bits: int) -> int | None:
    """Return a claimed size, or None for a value such as -1 that means "not known"."""
    if bits == 64:
        return None if size >= 2**62 else size
    return None if min(abs(size - 2**31), 2**32 - size) < _UNKNOWN else size


def _chunk(window: Window, layout: _Layout, place: int) -> tuple[bytes, int] | None:
    """Return name and size of the chunk at ``place``; None if there cannot be a chunk."""
    data = window.read_at(place, struct.calcsize(layout.chunk))
    if len(data) < struct.calcsize(layout.chunk) or not all(32 <= byte < 127 for byte in data[:4]):
        return None
    name, size = struct.unpack(layout.chunk, data)
    return name, size


def _behind(window: Window, layout: _Layout, body: int, size: int) -> int:
    """Return the place after a chunk; some writers do not pad chunks."""
    end = body + max(0, size)
    padded = body + -(-max(0, size) // layout.align) * layout.align
    return end if padded != end and _chunk(window, layout, padded) is None and _chunk(window, layout, end) else padded
