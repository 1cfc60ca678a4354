"""Folders of the repository that tests read, and readers of a folder's files."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
RECORDINGS = ROOT / "recordings"


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of a folder's files, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def contents_below(folder: Path) -> dict[Path, bytes]:
    """Return the bytes of the files in a folder and in all folders below it, by path within the folder."""
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
