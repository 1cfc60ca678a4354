"""Names of files that are still being written."""

from __future__ import annotations

import re
import uuid

from unfused_ray.storage.uris import name

_NAME = re.compile(r"\..*\.[0-9a-f]{32}\.tmp")
_OF_THIS_PROCESS = uuid.uuid4().hex[:16]
"""Beginning of the last part of the names that this process makes."""


def temporary_name(name: str) -> str:
    """Make a new name beside ``name`` for a file that is still being written."""
    return f".{name}.{_OF_THIS_PROCESS}{uuid.uuid4().hex[16:]}.tmp"


def is_unfinished(uri: str) -> bool:
    """Return True if a file is still being written, or was left by a process that died."""
    return _NAME.fullmatch(name(uri)) is not None


def is_of_this_process(uri: str) -> bool:
    """Return True if this process has made the name of an unfinished file."""
    return f".{_OF_THIS_PROCESS}" in name(uri)
