"""The file system of a URI, from pyarrow.fs, and its errors."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from unfused_ray import extras
from unfused_ray.storage.uris import absolute, is_local, split_options

if TYPE_CHECKING:
    from pyarrow import fs

CHUNK_BYTES = 8 << 20
"""Size of the pieces in which long files are copied or hashed."""


def resolve(uri: str) -> tuple[fs.FileSystem, Any]:
    """Return the file system of a URI, and the path on it; a local path as bytes, encoded as by Python's own
    functions."""
    fs = arrow_fs()
    if is_local(uri):
        return fs.LocalFileSystem(), os.fsencode(absolute(uri))
    import pyarrow as pa

    base, query = split_options(uri)
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
    return arrow_fs().FileSystem.from_uri(uri)


@functools.cache
def arrow_fs() -> Any:
    """Return Arrow's module of file systems."""
    extras.require("train", "pyarrow", "a URI, or more than a whole local file,")
    from pyarrow import fs

    return fs


@contextmanager
def errors_name(uri: str, action: str) -> Iterator[None]:
    """Name the URI, and the action on it, in the errors of a block."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"cannot {action} {uri}: there is no such file or folder") from error
    except OSError as error:
        raise type(error)(f"cannot {action} {uri}: {error}") from error
