"""A part of a file, as it was when it was opened."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import IO

from unfused_ray.audio.errors import AudioError, may_pass


class Window:
    """A part of a seekable binary file that decoders read, with some bytes replaced.

    Its size is fixed when it is opened: a file that grows meanwhile still ends where it ended then. Decoders take a
    failed read for the end of the audio, and drop an interrupt, so both are kept for ``refuse_failed``.

    Args:
        source: the whole file.
        begin, end: limits of the part; ``end`` None is the file's end.
        patches: replacement bytes, by their place in the part.
    """

    def __init__(
        self, source: IO[bytes], begin: int = 0, end: int | None = None, patches: Mapping[int, bytes] | None = None
    ) -> None:
        self._source = source
        self._begin = begin
        self._patches = patches or {}
        self._place = 0
        self._error: BaseException | None = None
        self.size = self._measure() if end is None else end - begin

    def part(self, begin: int, end: int, patches: Mapping[int, bytes] | None = None) -> Window:
        """Return a part of this part; places in ``patches`` are relative to it."""
        return Window(self._source, self._begin + begin, self._begin + end, patches)

    def read(self, size: int = -1) -> bytes:
        """Read ``size`` bytes, or fewer at the end."""
        left = max(0, self.size - self._place)
        buffer = bytearray(left if size < 0 else min(size, left))
        return bytes(buffer[: self.readinto(memoryview(buffer))])

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` as far as possible; return the number of bytes."""
        start, count = self._place, 0
        wanted = memoryview(buffer).cast("B")[: max(0, self.size - start)]
        if not len(wanted):
            return 0
        try:
            self._source.seek(self._begin + start)
            while count < len(wanted) and (read := self._source.readinto(wanted[count:])):  # type: ignore[attr-defined]
                count += read
        except BaseException as error:  # noqa: BLE001 - an interrupt, too, would be dropped by the caller, which is in C
            self._error = error
            return 0
        for place, data in self._patches.items():
            first, last = max(place, start), min(place + len(data), start + count)
            if first < last:
                wanted[first - start : last - start] = data[first - place : last - place]
        self._place += count
        return count

    def read_at(self, place: int, size: int) -> bytes:
        """Read ``size`` bytes from ``place``, or fewer at the end.

        Raises:
            AudioError: the bytes cannot be read.
        """
        self.seek(place)
        data = self.read(size)
        self.refuse_failed()
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Seek to a place and return it."""
        self._place = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size}[whence])
        return self._place

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._place

    def refuse_failed(self) -> None:
        """Raise an ``AudioError`` if a read has failed, or the interrupt that ended it, or an ``OSError`` that may
        pass."""
        if isinstance(self._error, OSError) and not may_pass(self._error):
            raise AudioError("unreadable", str(self._error)) from self._error
        if self._error is not None:
            raise self._error

    def growth(self) -> int:
        """Return the number of bytes by which the file has grown since it was opened; negative if it has shrunk."""
        return self._measure() - self.size

    def _measure(self) -> int:
        try:
            self._source.read(1)  # its error says more about an unreadable file than that of the seek
            return self._source.seek(0, io.SEEK_END) - self._begin
        except OSError as error:
            self._error = error
            return 0
