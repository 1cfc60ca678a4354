"""The JSON files in a run's folder: one format version for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unfused_ray import storage

FORMAT_VERSION = 2
"""Version of the files. Runs older than version 2 name no version, so their settings and history had to be guessed."""
_REMEDY = "train the run anew in another folder, or use the version of unfused-ray that wrote it"


def write_file(run_uri: str, name: str, content: Mapping[str, Any]) -> None:
    """Write the file ``name`` of a run, atomically.

    Raises:
        OSError: it cannot be written.
    """
    storage.write_json(storage.join(run_uri, name), content, FORMAT_VERSION)


def read_file(run_uri: str, name: str) -> dict[str, Any]:
    """Read a file that :func:`write_file` wrote.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it was written by another version.
    """
    return storage.read_json(storage.join(run_uri, name), FORMAT_VERSION, _REMEDY)
