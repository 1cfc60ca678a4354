"""SHA-256 of bytes and files."""

from __future__ import annotations

import hashlib
from typing import IO, TYPE_CHECKING

from unfused_ray.storage.file_systems import CHUNK_BYTES, errors_name
from unfused_ray.storage.reading import open_input

if TYPE_CHECKING:
    import pyarrow as pa


def sha256(data: bytes) -> str:
    """Return the SHA-256 as hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_stream(file: IO[bytes] | pa.NativeFile) -> str:
    """Return the SHA-256 of the rest of an open file as hex digits, read in pieces."""
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def sha256_file(uri: str) -> str:
    """Return the SHA-256 of a file as hex digits, read in pieces."""
    with open_input(uri) as file, errors_name(uri, "read"):
        return sha256_stream(file)
