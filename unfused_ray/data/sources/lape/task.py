"""The facts of a LAPE task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from unfused_ray.data.sources.items import Listing
from unfused_ray.data.sources.lape.disk import Disk


@dataclass(frozen=True)
class LapeTask:
    """Facts of a task as published, and the function that lists its clips."""

    name: str
    """Name of the data set."""
    classes: int
    clips: int
    """Clips of all splits of the whole data set."""
    hours: float
    """Approximate hours of audio."""
    licence: str
    url: str
    """Address to download the data set from."""
    archives: str
    """Archives to download, and the folders to extract them into unless the archives' own names will do."""
    requires: tuple[str, ...]
    """Files and folders of the publisher's layout."""
    list_clips: Callable[[Disk], Listing]

    def on(self, root: str) -> Disk:
        """Return the data set in the folder ``root``."""
        return Disk.at(root, self.name, f"{self.url} ({self.archives})", self.requires)
