"""Reads and writes files by URI: local paths, and all schemes of pyarrow.fs (``s3://``, ``gs://``).

A local file is looked up, read and written without pyarrow, which the core of the package does not include.

A remote URI is taken literally: ``s3://bucket/a key#1.wav`` names exactly that key, nothing is percent-decoded. Options
of the file system follow the last ``?``: ``s3://bucket/p?endpoint_override=host:9000&scheme=http`` is a MinIO.
Credentials come from the environment, as does ``AWS_ENDPOINT_URL``.

Writing is atomic: a reader sees the old bytes or the new ones, never a part.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

from unfused_ray import extras

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import fs

_CHUNK_BYTES = 8 << 20
_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{32}\.tmp")
_OF_THIS_PROCESS = uuid.uuid4().hex[:16]
"""Beginning of the last part of this process's temporary names."""
_QUERY = re.compile(r"\?[a-z_]+=[^&?=/]*(&[a-z_]+=[^&?=/]*)*$")
# A password may hold slashes and @s: after "user:" everything up to the last @ is masked, even if that is too much.
_USER = re.compile(r"(?<=://)(?:[^/?#@\s\"]*:[^\s\"]*|[^/?#@\s\"]*)@")
_SECRET = re.compile(
    r"(?i)([?&](?:[\w-]*(?:key|secret|token|password|passwd|pwd|signature|credential)[\w-]*|sig|sas)=)[^&\s\"]+"
)


_Kind = Literal["file", "special", "folder", "left folder"]
"""Kind of an entry of a local folder. Special entries are pipes, devices, and links that lead nowhere. A left folder is
one that a listing does not enter, because it is listed by another path."""


class Tree(NamedTuple):
    """The files in a folder, at any depth."""

    files: list[str]
    """URIs, sorted; they include links that lead nowhere, pipes and devices."""
    links: dict[str, str]
    """The folder of each link that was not followed, because that folder is listed by another path."""


def is_local(uri: str) -> bool:
    """Return True if ``uri`` is a path of this machine's file system."""
    return "://" not in uri or uri.startswith("file://")


def absolute(uri: str) -> str:
    """Make a local path absolute, with ``~`` expanded and without ``file://``; return a remote URI unchanged."""
    if is_local(uri):
        # Not with pathlib, which follows symbolic links, and raises if there is no such user.
        return os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))  # noqa: PTH100, PTH111
    return uri


def join(uri: str, *parts: str) -> str:
    """Join parts to ``uri/part/…``; options of a remote URI stay at its end."""
    base, query = _split_query(uri)
    return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts)]) + query


def name(uri: str) -> str:
    """Return the last part of a URI, without its options."""
    return _split_query(uri)[0].rstrip("/").rpartition("/")[2]


def parent(uri: str) -> str:
    """Return the folder that holds ``uri``, with the same options."""
    base, query = _split_query(uri)
    return base.rstrip("/").rpartition("/")[0] + query


def relative(uri: str, folder: str) -> str:
    """Return the path of ``uri`` from a folder above it, without options."""
    return _split_query(uri)[0].removeprefix(_split_query(folder)[0].rstrip("/") + "/")


def exists(uri: str) -> bool:
    """Return True if there is a file or folder at ``uri``."""
    if is_local(uri):
        with _errors_name(uri, "look up"):
            return _is_there(absolute(uri))
    filesystem, path = _resolve(uri)
    with _errors_name(uri, "look up"):
        return filesystem.get_file_info(path).type != _fs().FileType.NotFound


def is_folder(uri: str) -> bool:
    """Return True if there is a folder at ``uri`` (in an object store, a common prefix)."""
    filesystem, path = _resolve(uri)
    with _errors_name(uri, "look up"):
        return filesystem.get_file_info(path).type == _fs().FileType.Directory


def modified(uri: str) -> float:
    """Return the time of a file's last change, in seconds since 1970.

    Raises:
        FileNotFoundError: nothing is there.
    """
    filesystem, path = _resolve(uri)
    with _errors_name(uri, "look up"):
        info = filesystem.get_file_info(path)
    if info.type == _fs().FileType.NotFound:
        raise FileNotFoundError(f"cannot look up {uri}: there is no such file or folder")
    return info.mtime_ns / 1e9


def open_input(uri: str) -> pa.NativeFile:
    """Open a file for random access; use it as a context manager.

    Raises:
        FileNotFoundError: nothing is there.
        OSError: it cannot be read.
    """
    filesystem, path = _resolve(uri)
    with _errors_name(uri, "open"):
        return filesystem.open_input_file(path)


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


def read_bytes(uri: str) -> bytes:
    """Read a whole file.

    Raises:
        FileNotFoundError: nothing is there.
        OSError: it cannot be read.
    """
    if is_local(uri):
        with _errors_name(uri, "read"):
            return Path(absolute(uri)).read_bytes()
    with open_input(uri) as file, _errors_name(uri, "read"):
        return file.read()


@contextmanager
def open_output(uri: str) -> Iterator[IO[bytes]]:
    """Open a local file to write, read back and seek in; it becomes ``uri`` if the block ends without an exception.

    Missing folders are made. Exceptions of the block itself are raised unchanged.

    Raises:
        OSError: ``uri`` cannot be written; names it, unless the folder for temporary files is full.
    """
    if not is_local(uri):
        filesystem, path = _resolve(uri)
        folder, _, last = path.rpartition("/")
        temporary = f"{folder}/{_temporary(last)}"
        with tempfile.TemporaryFile() as spool:
            yield spool
            spool.seek(0)
            with _errors_name(uri, "write"):
                try:
                    # Not to its final place at once, because closing commits the bytes that were sent, even after an
                    # error between two pieces.
                    with filesystem.open_output_stream(temporary) as target:
                        shutil.copyfileobj(spool, target, _CHUNK_BYTES)
                    filesystem.move(temporary, path)
                except BaseException:
                    with suppress(FileNotFoundError):
                        filesystem.delete_file(temporary)
                    raise
        return
    final = Path(absolute(uri))
    unfinished = final.with_name(_temporary(final.name))
    with _errors_name(uri, "write"):
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
            with _errors_name(uri, "write"):
                os.fsync(output.fileno())
        with _errors_name(uri, "write"):
            unfinished.replace(final)
    finally:
        with _errors_name(uri, "write"):
            unfinished.unlink(missing_ok=True)


def write_bytes(uri: str, data: bytes) -> None:
    """Write a file atomically, and make its folders if they are missing.

    Raises:
        OSError: it cannot be written.
    """
    with open_output(uri) as output:
        output.write(data)


def list_files(uri: str, recursive: bool = False) -> list[str]:
    """List the URIs of the files in a folder, sorted; none if there is no folder. Unfinished writes are left out.

    Links to local folders are followed, but not into a folder that is listed anyway, because links may lead in circles.
    A local name that is not UTF-8 has surrogates for its bytes.
    """
    return [found for found in _list(uri, False, recursive) if not _is_temporary(found)]


def list_tree(uri: str) -> Tree:
    """List a folder like :func:`list_files`, at any depth, together with the entries that it leaves out."""
    if not is_local(uri):
        return Tree(list_files(uri, recursive=True), {})
    entries = _walk_if_there(uri, recursive=True)
    files = sorted(path for path, kind in entries if kind in ("file", "special") and not _is_temporary(path))
    return Tree(files, {path: os.path.realpath(path) for path, kind in sorted(entries) if kind == "left folder"})


def list_folders(uri: str) -> list[str]:
    """List the URIs of the folders directly in a folder, sorted; none if there is no folder."""
    return _list(uri, True, recursive=False)


def delete(uri: str) -> None:
    """Remove a file, or a folder with its contents, if it exists."""
    filesystem, path = _resolve(uri)
    with _errors_name(uri, "delete"), suppress(FileNotFoundError):
        if filesystem.get_file_info(path).type == _fs().FileType.Directory:
            filesystem.delete_dir(path)
        else:
            filesystem.delete_file(path)


def delete_unfinished(uri: str) -> None:
    """Remove the half-written files of a folder; call it only if no other process writes there.

    Files of this process stay, because another of its threads may be writing there, such as one that renews a lease.
    """
    for found in _list(uri, False, recursive=False):
        if _is_temporary(found) and f".{_OF_THIS_PROCESS}" not in name(found):
            delete(found)


def sha256(data: bytes) -> str:
    """Return the SHA-256 as hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_stream(file: IO[bytes] | pa.NativeFile) -> str:
    """Return the SHA-256 of the rest of an open file as hex digits, read in pieces."""
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def sha256_file(uri: str) -> str:
    """Return the SHA-256 of a file as hex digits, read in pieces."""
    with open_input(uri) as file, _errors_name(uri, "read"):
        return sha256_stream(file)


def masked(text: str) -> str:
    """Mask the credentials of URIs in a text: users, passwords, and options such as a secret key.

    Quotation marks end a URI, so that masked JSON is still JSON.
    """
    return _SECRET.sub(r"\1…", _USER.sub("…@", text))


def _split_query(uri: str) -> tuple[str, str]:
    """Split a URI into the part without its options, and the options with their question mark."""
    options = None if is_local(uri) else _QUERY.search(uri)
    return (uri[: options.start()], options.group()) if options else (uri, "")


def _resolve(uri: str) -> tuple[fs.FileSystem, Any]:
    """Return the file system of a URI, and the path on it; a local path as bytes, encoded as by Python's own
    functions."""
    fs = _fs()
    if is_local(uri):
        return fs.LocalFileSystem(), os.fsencode(absolute(uri))
    import pyarrow as pa

    base, query = _split_query(uri)
    scheme, _, rest = base.partition("://")
    host, _, path = rest.partition("/")
    try:
        # Only the host is parsed by Arrow, which would decode the path.
        filesystem, root = _connect(f"{scheme}://{host}{query}", os.environ.get("AWS_ENDPOINT_URL", ""))
    except pa.ArrowInvalid as error:
        raise ValueError(f"cannot use {uri}: {error}. Give a path, or a URI such as s3://bucket/folder") from error
    except OSError as error:  # for example, the request for a bucket's region failed
        raise OSError(f"cannot reach {uri}: {error}") from error
    return filesystem, f"{root.rstrip('/')}/{path}".rstrip("/")


@functools.lru_cache(maxsize=8)
def _connect(uri: str, endpoint: str) -> tuple[fs.FileSystem, str]:
    """Return a file system, cached because making one takes 11 ms, as long as decoding five clips. Arrow reads
    ``endpoint``."""
    return _fs().FileSystem.from_uri(uri)


@functools.cache
def _fs() -> Any:
    """Return Arrow's module of file systems."""
    extras.require("train", "pyarrow", "a URI, or more than a whole local file,")
    from pyarrow import fs

    return fs


def _is_there(path: str) -> bool:
    """Return True if a local path exists; unlike pathlib, raise if a folder on the way may not be read."""
    try:
        os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _list(uri: str, folders: bool, recursive: bool) -> list[str]:
    """List the URIs of the files in a folder, or of the folders."""
    if is_local(uri):
        kinds = ("folder", "left folder") if folders else ("file",)
        return sorted(path for path, kind in _walk_if_there(uri, recursive) if kind in kinds)
    fs = _fs()
    filesystem, root = _resolve(uri)
    with _errors_name(uri, "list"):
        if filesystem.get_file_info(root).type != fs.FileType.Directory:
            return []
        found = filesystem.get_file_info(fs.FileSelector(root, allow_not_found=True, recursive=recursive))
    folder = absolute(uri)
    kind = fs.FileType.Directory if folders else fs.FileType.File
    return sorted(join(folder, info.path[len(root) :]) for info in found if info.type == kind)


def _walk_if_there(uri: str, recursive: bool) -> list[tuple[str, _Kind]]:
    """List the entries of a local folder; none if there is no folder."""
    with _errors_name(uri, "list"):
        return list(_walk(absolute(uri), recursive)) if is_folder(uri) else []


def _walk(root: str, recursive: bool) -> Iterator[tuple[str, _Kind]]:
    """Walk a local folder; not with Arrow, which follows links in circles and takes only UTF-8 names."""
    top = os.path.realpath(root)
    seen, left = {top}, [root]
    while left:
        with os.scandir(left.pop()) as entries:
            # By name; otherwise the file system's order would decide by which of two links a folder is listed.
            for entry in sorted(entries, key=lambda entry: entry.name):
                if not os.path.isdir(entry.path) if entry.is_symlink() else not entry.is_dir():  # noqa: PTH112
                    yield entry.path, "file" if os.path.isfile(entry.path) else "special"  # noqa: PTH113
                    continue
                real = os.path.realpath(entry.path)
                if real in seen or (entry.is_symlink() and real.startswith(f"{top}/")):
                    yield entry.path, "left folder"
                    continue
                yield entry.path, "folder"
                if recursive:
                    seen.add(real)
                    left.append(entry.path)


def _temporary(name: str) -> str:
    """Make a new name beside ``name`` for a file that is still being written."""
    return f".{name}.{_OF_THIS_PROCESS}{uuid.uuid4().hex[16:]}.tmp"


def _is_temporary(uri: str) -> bool:
    return _TEMPORARY.fullmatch(name(uri)) is not None


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
        with _errors_name(self._uri, "write"):
            return super().write(data)

    def readinto(self, buffer: Any, /) -> Any:
        """Read bytes back."""
        with _errors_name(self._uri, "read back"):
            return super().readinto(buffer)


@contextmanager
def _errors_name(uri: str, action: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"cannot {action} {uri}: there is no such file or folder") from error
    except OSError as error:
        raise type(error)(f"cannot {action} {uri}: {error}") from error
