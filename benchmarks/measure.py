"""Common parts of the benchmarks: contenders that take turns, a description of the machine, one form of result."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
_PACKAGES = (
    "torch",
    "torchaudio",
    "ray",
    "faiss-cpu",
    "faiss-gpu",
    "numpy",
    "pyarrow",
    "scikit-learn",
    "librosa",
    "hnswlib",
    "usearch",
)


@dataclass(frozen=True)
class Figure:
    """One line of a benchmark's result."""

    name: str
    value: float
    """Median if it was measured several times."""
    unit: str
    low: float | None = None
    high: float | None = None
    reach: str = ""
    """The target, in the figure's unit; empty if there is none."""


def by_turns(contenders: Mapping[str, Callable[[], object]], rounds: int, warmups: int = 1) -> dict[str, list[float]]:
    """Time the contenders by turns, each once per round, so that a slow spell of the machine hits all of them.

    Returns seconds of each call. Contenders that work on a GPU must wait for it themselves.
    """
    for _ in range(warmups):
        for work in contenders.values():
            work()
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            started = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - started)
    return taken


def figure(name: str, values: Sequence[float], unit: str, reach: str = "") -> Figure:
    """Return the median of several measurements, with their range."""
    return Figure(name, statistics.median(values), unit, min(values), max(values), reach)


def ratio(name: str, above: Sequence[float], below: Sequence[float], reach: str = "") -> Figure:
    """Return the median of the ratios of two contenders, round by round, with their range."""
    return figure(name, [a / b for a, b in zip(above, below, strict=True)], "×", reach)


def report(title: str, figures: Sequence[Figure], output: Path) -> None:
    """Print the figures as a table; write them with machine, versions and command to ``output``/<title>.json."""
    from rich.console import Console  # here: benchmarks.gpu runs on machines with little more than torch
    from rich.table import Table

    table = Table(title=title)
    for heading in ("figure", "median", "range", "unit", "reach"):
        table.add_column(heading, justify="right" if heading in ("median", "range") else "left")
    for line in figures:
        spread = "" if line.low is None or line.high is None else f"{line.low:.4g} to {line.high:.4g}"
        table.add_row(line.name, f"{line.value:.4g}", spread, line.unit, line.reach)
    Console(width=120).print(table)
    output.mkdir(parents=True, exist_ok=True)
    record = {
        "title": title,
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "command": command(),
        "machine": machine(),
        "figures": [asdict(line) for line in figures],
    }
    (output / f"{title}.json").write_text(json.dumps(record, indent=1))


def machine() -> dict[str, object]:
    """Describe the machine: processor, memory, accelerator and versions."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # one of the two faiss; librosa without the dev extra
            continue
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": versions,
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def command() -> str:
    """Return the command line of this process, as a reader would type it."""
    spec = sys.modules["__main__"].__spec__
    return " ".join(["python", "-m", spec.name if spec else sys.argv[0], *sys.argv[1:]])
