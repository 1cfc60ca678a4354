"""URIs as text: their parts, and their secrets."""

from __future__ import annotations

import os
import re

_OPTION = (
    "(?:region|scheme|endpoint_override|allow_[a-z_]+|check_[a-z_]+|tls_[a-z_]+|smart_defaults|background_writes"
    "|default_[a-z_]+|retry_limit_seconds|project_id|user|replication|buffer_size|kerb_ticket|enable_tls"
    "|credential_kind|tenant_id|client_(?:id|secret)|(?:blob|dfs)_storage_[a-z]+)=[^&?=/]*"
)
"""An option of Arrow's object stores. Whatever else follows a question mark, as in ``x.mp3?dl=1``, is part of a key."""
_OTHER = r"[a-z_]+=[^&?=/]*"  # among Arrow's options, such as a secret
_QUERY = re.compile(rf"\?({_OTHER}&)*{_OPTION}(&{_OTHER})*$")
# A password may hold slashes and @s: after "user:" everything up to the last @ is masked, even if that is too much.
_USER = re.compile(r"(?<=://)(?:[^/?#@\s\"]*:[^\s\"]*|[^/?#@\s\"]*)@")
_SECRET = re.compile(
    r"(?i)([?&](?:[\w-]*(?:key|secret|token|password|passwd|pwd|signature|credential)[\w-]*|sig|sas)=)[^&\s\"]+"
)


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
    base, query = split_options(uri)
    return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts)]) + query


def name(uri: str) -> str:
    """Return the last part of a URI, without its options."""
    return split_options(uri)[0].rstrip("/").rpartition("/")[2]


def parent(uri: str) -> str:
    """Return the folder that holds ``uri``, with the same options; a root folder, or a bucket, for itself."""
    base, query = split_options(uri)
    root = re.match(r"\w+://[^/]+|/?", base)
    assert root is not None  # it may be empty
    return max(base.rstrip("/").rpartition("/")[0], root.group(), key=len) + query


def relative(uri: str, folder: str) -> str:
    """Return the path of ``uri`` from a folder above it, without options."""
    return split_options(uri)[0].removeprefix(split_options(folder)[0].rstrip("/") + "/")


def masked(text: str) -> str:
    """Mask the credentials of URIs in a text: users, passwords, and options such as a secret key.

    Quotation marks end a URI, so that masked JSON is still JSON.
    """
    return _SECRET.sub(r"\1…", _USER.sub("…@", text))


def split_options(uri: str) -> tuple[str, str]:
    """Split a URI into the part without its options, and the options with their question mark."""
    options = None if is_local(uri) else _QUERY.search(uri)
    return (uri[: options.start()], options.group()) if options else (uri, "")
