"""Lists folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Literal, NamedTuple

from unfused_ray.storage.file_systems import arrow_fs, errors_name, resolve
from unfused_ray.storage.reading import is_folder
from unfused_ray.storage.unfinished import is_unfinished
from unfused_ray.storage.uris import absolute, is_local, join

_Kind = Literal["file", "special", "folder", "left folder"]
"""Kind of an entry of a local folder. Special entries are pipes, devices, and links that lead nowhere. A left folder is
one that a listing does not enter, because it is listed by another path."""


class Tree(NamedTuple):
    """The files in a folder, at any depth."""

    files: list[str]
    """URIs, sorted; they include links that lead nowhere, pipes and devices."""
    links: dict[str, str]
    """The folder of each link that was not followed, because that folder is listed by another path."""


def list_files(uri: str, recursive: bool = False) -> list[str]:
    """List the URIs of the files in a folder, sorted; none if there is no folder. Unfinished writes are left out.

    Links to local folders are followed, but not into a folder that is listed anyway, because links may lead in circles.
    A local name that is not UTF-8 has surrogates for its bytes.
    """
    return [found for found in _list(uri, False, recursive) if not is_unfinished(found)]


def list_tree(uri: str) -> Tree:
    """List a folder like :func:`list_files`, at any depth, together with the entries that it leaves out."""
    if not is_local(uri):
        return Tree(list_files(uri, recursive=True), {})
    entries = _walk_if_there(uri, recursive=True)
    files = sorted(path for path, kind in entries if kind in ("file", "special") and not is_unfinished(path))
    return Tree(files, {path: os.path.realpath(path) for path, kind in sorted(entries) if kind == "left folder"})


def list_folders(uri: str) -> list[str]:
    """List the URIs of the folders directly in a folder, sorted; none if there is no folder."""
    return _list(uri, True, recursive=False)


def list_unfinished(uri: str) -> list[str]:
    """List the URIs of the files directly in a folder whose writing has not ended, sorted; none if there is no
    folder."""
    return [found for found in _list(uri, False, recursive=False) if is_unfinished(found)]


def _list(uri: str, folders: bool, recursive: bool) -> list[str]:
    """List the URIs of the files in a folder, or of the folders."""
    if is_local(uri):
        kinds = ("folder", "left folder") if folders else ("file",)
        return sorted(path for path, kind in _walk_if_there(uri, recursive) if kind in kinds)
    fs = arrow_fs()
    filesystem, root = resolve(uri)
    with errors_name(uri, "list"):
        if filesystem.get_file_info(root).type != fs.FileType.Directory:
            return []
        found = filesystem.get_file_info(fs.FileSelector(root, allow_not_found=True, recursive=recursive))
    folder = absolute(uri)
    kind = fs.FileType.Directory if folders else fs.FileType.File
    return sorted(join(folder, info.path[len(root) :]) for info in found if info.type == kind)


def _walk_if_there(uri: str, recursive: bool) -> list[tuple[str, _Kind]]:
    """List the entries of a local folder; none if there is no folder."""
    with errors_name(uri, "list"):
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
