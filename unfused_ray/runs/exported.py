"""The network that a run has exported. It may be of fewer epochs, or of other settings, than the run has by now."""

from __future__ import annotations

from typing import Any

from unfused_ray import storage
from unfused_ray.models.export import find_export, read_description
from unfused_ray.runs.run import CONFIGS, Run, is_run


def exported_epochs(run: Run) -> int:
    """Return the number of epochs of a run when it was exported; 0 without an export.

    Raises:
        ValueError: the export was written by another version.
    """
    extra = _export(run)
    epochs: int = extra.get("run_epochs", extra.get("epochs", 0))  # older runs record only the latter
    return epochs


def exported_network(run: Run) -> str:
    """Return which network a run has exported, by its name in ``watch.export``.

    Raises:
        ValueError: the export was written by another version.
    """
    settings = _export(run).get("config", {}).get("watch", {})
    name: str = settings.get("export", "last")
    return name


def _export(run: Run) -> dict[str, Any]:
    """Return the details of a run's export: its epochs, and the settings that it was exported with."""
    if not is_run(run.uri):
        return {}
    uri = storage.join(run.uri, CONFIGS[run.record()["stage"]].export)
    extra: dict[str, Any] = read_description(uri)["extra"] if find_export(uri) else {}
    return extra
