"""What a job says: for a person on the terminal and, where a file is named, as a line of JSON a record for machines.

Called at entry points alone. No record shows the credentials of a URI.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.logging import RichHandler

from unfused_ray import storage

LOG_FILE = "UNFUSED_RAY_LOG"
"""Environment variable: path of the file that records are appended to, a JSON object a line."""
FIELDS = ("run", "stage", "rank", "epoch", "step", "figures")
"""What a record may say beside its message; ``rank`` is the worker's that said it."""
PACKAGE = "unfused_ray"


class Masked(logging.Formatter):
    """Words for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, without the credentials of URIs."""
        return storage.masked(super().format(record))


class JsonLines(logging.Formatter):
    """A JSON object a record: time (UTC), level, logger, message, host, pid, what ``FIELDS`` are known, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "host": socket.gethostname(),
            "pid": record.process,
        }
        said |= {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return storage.masked(json.dumps(said))


def configure() -> None:
    """Send records to the terminal and, where ``UNFUSED_RAY_LOG`` names one, to a file too.

    Raises:
        OSError: the file cannot be written.
    """
    terminal = RichHandler(console=Console(stderr=True), show_path=False, show_level=False)
    terminal.setFormatter(Masked("%(message)s", datefmt="%H:%M:%S"))
    terminal.setLevel(logging.INFO)
    logging.basicConfig(level=logging.INFO, handlers=[terminal])
    if path := os.environ.get(LOG_FILE):
        file = logging.FileHandler(Path(path).expanduser())
        file.setFormatter(JsonLines())
        logging.getLogger().addHandler(file)
        logging.getLogger(PACKAGE).setLevel(logging.DEBUG)


@contextmanager
def fields(now: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
    """Records of this process say ``now()`` too, as of when they are written."""

    def add(record: logging.LogRecord) -> bool:
        record.__dict__.update({name: value for name, value in now().items() if name not in record.__dict__})
        return True

    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(add)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(add)


class Forward(logging.Handler):
    """Passes the warnings of a worker's process on to who tells them to a person.

    Args:
        note: takes a message and the worker's rank.
        rank: of the worker.
    """

    def __init__(self, note: Callable[[str, int], None], rank: int) -> None:
        super().__init__(logging.WARNING)
        self._note, self._rank = note, rank

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on."""
        self._note(self.format(record), self._rank)


@contextmanager
def forwarded(note: Callable[[str, int], None], rank: int) -> Iterator[None]:
    """Warnings of the package go to ``note``, with the worker's rank."""
    handler, logger = Forward(note, rank), logging.getLogger(PACKAGE)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
