"""Standard output and error that never end the work, whatever their encoding, vanished readers or full disks."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

_FIRST_FREE = 3
"""The first descriptor after those of standard input, output and error."""


class OutlivedStream:
    """A text stream that escapes characters its encoding lacks, and drops text once it cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        """Write the buffered text, or drop it."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        with suppress(OSError):  # the stream has no descriptor
            # The buffered rest is written when the process ends; without this, the process would end with another exit
            # code.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        if self is sys.stdout and not isinstance(error, BrokenPipeError):
            sys.stderr.write(f"standard output cannot be written ({error}): the job continues, its output is lost\n")


@contextmanager
def outlived() -> Iterator[None]:
    """Replace standard output and error with streams whose failure the work survives; a closed one leads nowhere."""
    while (free := os.open(os.devnull, os.O_RDWR)) < _FIRST_FREE:  # or a file would get a closed stream's number
        pass
    os.close(free)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = [OutlivedStream(stream or _nowhere()) for stream in before]
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")
