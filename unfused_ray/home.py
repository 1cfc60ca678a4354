"""The default folder of runs, shards and evaluations."""

from __future__ import annotations

import os

from unfused_ray import storage


def home() -> str:
    """Return the default folder, by path or URI: ``UNFUSED_RAY_HOME``, or ~/unfused-ray."""
    return storage.absolute(os.environ.get("UNFUSED_RAY_HOME") or "~/unfused-ray")


def local_home() -> str:
    """Return the default folder on this machine, for SQLite files, which cannot lie in an object store."""
    return home() if storage.is_local(home()) else storage.absolute("~/unfused-ray")
