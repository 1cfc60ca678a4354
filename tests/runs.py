"""Tiny runs for tests: their configuration, a tracking store that is made once, and what to compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from unfused_ray import recipes
from unfused_ray.config import PretrainConfig

TIMES = ("clips_per_second", "seconds_")
"""Beginnings of the names of what differs between two equal runs."""


def tiny(source: Path, output: Path, tracking_uri: str, **fields: Any) -> PretrainConfig:
    """The recipe "tiny" in this process on one thread; ``group__field`` changes a field of a group."""
    values: dict[str, Any] = recipes.PRETRAIN["tiny"][1].model_dump()
    values |= {"data": (str(source),), "output": str(output)}
    values["tracking"]["uri"] = tracking_uri
    values["runtime"]["threads"] = 1
    for name, value in fields.items():
        *groups, field = name.split("__")
        place = values
        for group in groups:
            place = place[group]
        place[field] = value
    return PretrainConfig(**values)


def weights(run: Path) -> dict[str, np.ndarray]:
    """The newest checkpoint's weights and optimiser state."""
    newest = max((run / "checkpoints").iterdir())
    return {
        f"{file}/{name}": tensor
        for file in ("model", "optimizer")
        for name, tensor in safetensors.numpy.load((newest / f"{file}.safetensors").read_bytes()).items()
    }


def assignments(run: Path) -> dict[str, bytes]:
    """Every written pseudo-label and prototype, byte for byte."""
    files = sorted((run / "assignments").rglob("*.*"))
    return {str(file.relative_to(run)): file.read_bytes() for file in files if file.name != "assignment.json"}


def history(run: Path) -> list[dict[str, float]]:
    """The figures of every epoch, without times."""
    entries = json.loads((run / "history.json").read_text())
    return [{key: value for key, value in entry.items() if not key.startswith(TIMES)} for entry in entries]


def assert_equal_runs(run: Path, other: Path) -> None:
    """Weights, optimiser, pseudo-labels, figures and export of two runs are equal, bit for bit."""
    ours, theirs = weights(run), weights(other)
    assert ours.keys() == theirs.keys()
    differing = [name for name in ours if not np.array_equal(ours[name], theirs[name])]
    assert not differing
    assert assignments(run) == assignments(other)
    assert history(run) == history(other)
    export = "encoder/encoder.safetensors"
    assert (run / export).read_bytes() == (other / export).read_bytes()
