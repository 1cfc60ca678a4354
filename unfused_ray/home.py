"""The default folder of runs, shards and evaluations."""

from __future__ import annotations

import os

from unfused_ray import storage


def home() -> str:
    """Folder of runs by default, by path or URI: ``UNFUSED_RAY_HOME``, or ~/unfused-ray."""
    return storage.absolute(os.environ.get("UNFUSED_RAY_HOME", "~/unfused-ray"))


def local_home() -> str:
    """The same on this machine: an SQLite file cannot lie in an object store."""
    return home() if storage.is_local(home()) else storage.absolute("~/unfused-ray")
