"""Folders of the repository that tests read, and a reader of a folder's files."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
RECORDINGS = ROOT / "recordings"


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of a folder's files, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
