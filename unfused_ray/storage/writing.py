"""Writes files atomically, and deletes them."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from unfused_ray.storage.file_systems import CHUNK_BYTES, arrow_fs, errors_name, resolve
from unfused_ray.storage.listing import list_unfinished
from unfused_ray.storage.unfinished import is_of_this_process, temporary_name
from unfused_ray.storage.uris import absolute, is_local


def open_output(uri: str) -> AbstractContextManager[IO[bytes]]:
    """Open a local file to write, read back and seek in; it becomes ``uri`` if the block ends without an exception.

    Missing folders are made. Exceptions of the block itself are raised unchanged.

    Raises:
        OSError: ``uri`` cannot be written; names it, unless the folder for temporary files is full.
    """
    return _local_output(uri) if is_local(uri) else _remote_output(uri)


def write_bytes(uri: str, data: bytes) -> None:
    """Write a file atomically, and make its folders if they are missing.

    Raises:
        OSError: it cannot be written.
    """
    with open_output(uri) as output:
        output.write(data)


def delete(uri: str) -> None:
    """Remove a file, or a folder with its contents, if it exists."""
    filesystem, path = resolve(uri)
    with errors_name(uri, "delete"), suppress(FileNotFoundError):
        if filesystem.get_file_info(path).type == arrow_fs().FileType.Directory:
            filesystem.delete_dir(path)
        else:
            filesystem.delete_file(path)


def delete_unfinished(uri: str) -> None:
    """Remove the half-written files of a folder; call it only if no other process writes there.

    Files of this process stay, because another of its threads may be writing there, such as one that renews a lease.
    """
    for found in list_unfinished(uri):
        if not is_of_this_process(found):
            delete(found)


@contextmanager
def _local_output(uri: str) -> Iterator[IO[bytes]]:
    final = Path(absolute(uri))
    unfinished = final.with_name(temporary_name(final.name))
    with errors_name(uri, "write"):
        final.parent.mkdir(parents=True, exist_ok=True)
        file = _Output(unfinished, uri)
    try:
        # Errors in the block are not named after the output, because the block may read other files, whose errors name
        # those.
        with io.BufferedRandom(file) as output:
            try:
                yield output
            except BaseException:
                file.close()  # drops unwritten bytes, whose writing could hide this error
                raise
            output.flush()
            with errors_name(uri, "write"):
                os.fsync(output.fileno())
        with errors_name(uri, "write"):
            unfinished.replace(final)
    finally:
        with errors_name(uri, "write"):
            unfinished.unlink(missing_ok=True)


@contextmanager
def _remote_output(uri: str) -> Iterator[IO[bytes]]:
    filesystem, path = resolve(uri)
    folder, _, last = path.rpartition("/")
    temporary = f"{folder}/{temporary_name(last)}"
    with tempfile.TemporaryFile() as spool:
        yield spool
        spool.seek(0)
        with errors_name(uri, "write"):
            try:
                # Not to its final place at once, because closing commits the bytes that were sent, even after an
                # error between two pieces.
                with filesystem.open_output_stream(temporary) as target:
                    shutil.copyfileobj(spool, target, CHUNK_BYTES)
                filesystem.move(temporary, path)
            except BaseException:
                with suppress(FileNotFoundError):
                    filesystem.delete_file(temporary)
                raise


class _Output(io.FileIO):
    """A new local file to write and read back; its errors name the output that it becomes.

    Args:
        path: path of the file.
        uri: URI of the output.

    Raises:
        OSError: the file cannot be made; names only the path.
    """

    def __init__(self, path: Path, uri: str) -> None:
        super().__init__(path, "w+b")
        self._uri = uri

    def write(self, data: Any, /) -> Any:
        """Write bytes; the disk may be full."""
        with errors_name(self._uri, "write"):
            return super().write(data)

    def readinto(self, buffer: Any, /) -> Any:
        """Read bytes back."""
        with errors_name(self._uri, "read back"):
            return super().readinto(buffer)
