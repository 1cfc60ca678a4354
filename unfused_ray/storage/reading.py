"""Looks files up and reads them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from unfused_ray.storage.file_systems import arrow_fs, errors_name, resolve
from unfused_ray.storage.uris import absolute, is_local

if TYPE_CHECKING:
    import pyarrow as pa


def exists(uri: str) -> bool:
    """Return True if there is a file or folder at ``uri``."""
    if is_local(uri):
        with errors_name(uri, "look up"):
            return _is_there(absolute(uri))
    filesystem, path = resolve(uri)
    with errors_name(uri, "look up"):
        return filesystem.get_file_info(path).type != arrow_fs().FileType.NotFound


def is_folder(uri: str) -> bool:
    """Return True if there is a folder at ``uri`` (in an object store, a common prefix)."""
    filesystem, path = resolve(uri)
    with errors_name(uri, "look up"):
        return filesystem.get_file_info(path).type == arrow_fs().FileType.Directory


def modified(uri: str) -> float:
    """Return the time of a file's last change, in seconds since 1970.

    Raises:
        FileNotFoundError: nothing is there.
    """
    filesystem, path = resolve(uri)
    with errors_name(uri, "look up"):
        info = filesystem.get_file_info(path)
    if info.type == arrow_fs().FileType.NotFound:
        raise FileNotFoundError(f"cannot look up {uri}: there is no such file or folder")
    return info.mtime_ns / 1e9


def open_input(uri: str) -> pa.NativeFile:
    """Open a file for random access; use it as a context manager.

    Raises:
        FileNotFoundError: nothing is there.
        OSError: it cannot be read.
    """
    filesystem, path = resolve(uri)
    with errors_name(uri, "open"):
        return filesystem.open_input_file(path)


def read_bytes(uri: str) -> bytes:
    """Read a whole file.

    Raises:
        FileNotFoundError: nothing is there.
        OSError: it cannot be read.
    """
    if is_local(uri):
        with errors_name(uri, "read"):
            return Path(absolute(uri)).read_bytes()
    with open_input(uri) as file, errors_name(uri, "read"):
        return file.read()


def _is_there(path: str) -> bool:
    """Return True if a local path exists; unlike pathlib, raise if a folder on the way may not be read."""
    try:
        os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
