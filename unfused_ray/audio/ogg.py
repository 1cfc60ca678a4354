"""Examines the pages of Ogg files: where one file ends and the next begins, and whether both are complete."""

from __future__ import annotations

from typing import NamedTuple

from unfused_ray.audio.ends import End, end_at
from unfused_ray.audio.errors import WarningReason
from unfused_ray.audio.window import Window

_FIRST, _LAST = 2, 4  # flags of a stream's first and last page


class Link(NamedTuple):
    """One of the Ogg files that are chained in a file."""

    end: End
    is_plain: bool
    """True if the link is one stream, complete from first page to last."""
    problem: tuple[WarningReason, str] | None


def examine(window: Window) -> Link:
    """Read the headers of a link's pages, without checking the pages' contents."""
    place, streams, whole = 0, 0, End(window.size)
    is_first, is_last = True, False
    problem: tuple[WarningReason, str] | None = None
    following: dict[bytes, int] = {}  # number of the next page, by stream
    while place < window.size:
        head = window.read_at(place, 27)
        if head[:4] != b"OggS" or len(head) < 27:
            end = end_at(window, place)
            if not is_last and end.place < window.size:
                problem = problem or ("cut short", "another file begins before its last page")
            elif not is_last:  # FFmpeg searches for further pages
                problem, end = problem or ("damaged", f"no Ogg page begins at byte {place}, where one should"), whole
            return Link(end, streams == 1 and is_last and problem is None and place == end.place, problem)
        if head[5] & _FIRST and not is_first:
            return Link(End(place), streams == 1 and is_last and problem is None, problem)
        is_first, is_last = bool(head[5] & _FIRST), bool(head[5] & _LAST)
        streams += is_first
        stream, number = head[14:18], int.from_bytes(head[18:22], "little")
        if not is_first and following.get(stream) != number:
            problem = problem or ("damaged", f"page {number} does not follow page {following.get(stream, 0) - 1}")
        following[stream] = number + 1
        place += 27 + head[26] + sum(window.read_at(place + 27, head[26]))
    if place > window.size:
        problem = problem or ("cut short", f"its last page ends {place - window.size} bytes past the end")
    elif not is_last:
        problem = problem or ("cut short", "its last page is not marked as the last")
    return Link(whole, streams == 1 and problem is None and place == window.size, problem)
