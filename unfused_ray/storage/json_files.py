"""JSON files with a format version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from unfused_ray.storage.reading import read_bytes
from unfused_ray.storage.writing import write_bytes


def read_json(uri: str, format_version: int | str | None = None, remedy: str = "write it anew") -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Args:
        uri: the file.
        format_version: version that the file must have, and that is left out of the result; None checks none.
        remedy: advice for a file of another version.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it holds no JSON object, or is of another version.
        OSError: it cannot be read.
    """
    try:
        content = json.loads(read_bytes(uri))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{uri} is no JSON ({error}): copy it again, or write it anew") from error
    if not isinstance(content, dict):
        found = type(content).__name__
        raise ValueError(f"{uri} holds a JSON {found}, not a dict: copy it again, or write it anew")
    if format_version is not None:
        found = content.pop("format_version", "none (of an older version of unfused-ray)")
        if found != format_version:
            raise ValueError(f"{uri} has format_version {found}, this version reads {format_version}: {remedy}")
    return content


def write_json(uri: str, content: Mapping[str, Any], format_version: int | str) -> None:
    """Write a JSON object with its format version, atomically.

    Raises:
        OSError: it cannot be written.
    """
    write_bytes(uri, json.dumps({"format_version": format_version, **content}, indent=1).encode())
