"""Logging of a job: text on the terminal and, if a file is named, one line of JSON per record for programs.

Only entry points configure it. No record shows the credentials of a URI.
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

from rich.logging import RichHandler

from unfused_ray import storage
from unfused_ray.progress import terminal

LOG_FILE = "UNFUSED_RAY_LOG"
"""Environment variable with the path of a file that records are appended to, one JSON object per line."""
FIELDS = ("run", "stage", "rank", "epoch", "step", "figures")
"""Fields that a record may have beside its message; ``rank`` is the rank of the worker that logged it."""
PACKAGE = "unfused_ray"


class Masked(logging.Formatter):
    """Formats records for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message without the credentials of URIs."""
        return storage.masked(super().format(record))


class JsonLines(logging.Formatter):
    """Formats a record as a JSON object: time (UTC), level, logger, message, host, pid, known ``FIELDS``, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
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
    """Send records to the terminal and, if ``UNFUSED_RAY_LOG`` names a file, also to that.

    Libraries may only warn: their other messages (a font cache, a table of MLflow's database) would disturb the
    progress.

    Raises:
        OSError: the file cannot be written.
    """
    words = RichHandler(console=terminal(), show_path=False, show_level=False)
    words.setFormatter(Masked("%(message)s", datefmt="%H:%M:%S"))
    words.setLevel(logging.INFO)
    logging.basicConfig(level=logging.WARNING, handlers=[words])
    package = logging.getLogger(PACKAGE)
    package.setLevel(logging.INFO)
    if path := os.environ.get(LOG_FILE):
        file = logging.FileHandler(Path(path).expanduser(), encoding="utf-8")
        file.setFormatter(JsonLines())
        logging.getLogger().addHandler(file)
        package.setLevel(logging.DEBUG)


@contextmanager
def fields(now: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
    """Add the fields that ``now()`` returns to the records that this process writes in this context."""

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
    """Passes on the warnings of a worker's process, to be shown to people.

    Args:
        note: receives a message and the worker's rank.
        rank: rank of the worker.
    """

    def __init__(self, note: Callable[[str, int], None], rank: int) -> None:
        super().__init__(logging.WARNING)
        self._note, self._rank = note, rank

    def emit(self, record: logging.LogRecord) -> None:
        """Forward a record."""
        self._note(self.format(record), self._rank)


@contextmanager
def forwarded(note: Callable[[str, int], None], rank: int) -> Iterator[None]:
    """Forward warnings of the package to ``note``, with the worker's rank, in this context."""
    handler, logger = Forward(note, rank), logging.getLogger(PACKAGE)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
