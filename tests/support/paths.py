"""Places of the repository that tests read, and what folders hold."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
RECORDINGS = ROOT / "recordings"


def contents(folder: Path) -> dict[str, bytes]:
    """Bytes of the files of a folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
