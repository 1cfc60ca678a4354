"""All measurements that need a GPU, in one JSON file, within eight minutes.

    python -m benchmarks.gpu [--output output/gpu.json] [--device cuda] [--small] [--parts step clustering]

The file is written anew after every part, so that the results so far survive whatever ends the script. A part that
lacks a package, or time, is set aside with the reason. A bare machine with torch and numpy measures the ceilings; with
pydantic also the step and the embedding. Clustering needs threadpoolctl; its third contender and search need faiss;
curves need soundfile; tests need pytest; and the whole training needs the packages of ``unfused-ray[train]``. ``python
-m benchmarks.gpu.page`` turns the file into the section of docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.timing import SetAsideError
from benchmarks.measure import ROOT, Figure, command, machine

PARTS = {
    "ceilings": ("benchmarks.gpu.ceilings", "measure"),
    "tests": ("benchmarks.gpu.suite", "measure"),
    "step": ("benchmarks.gpu.step", "measure"),
    "clustering": ("benchmarks.gpu.clustering", "measure"),
    "embedding": ("benchmarks.gpu.embedding", "measure"),
    "curves": ("benchmarks.gpu.curves", "measure"),
    "end to end": ("benchmarks.gpu.end_to_end", "measure"),
    "graph": ("benchmarks.gpu.step", "measure_graph"),
    "inductor": ("benchmarks.gpu.step", "measure_inductor"),
    "search": ("benchmarks.gpu.clustering", "measure_search"),
}
"""The parts in their order: the most valuable come first, the longest last."""
BUDGET, LAST_START = 480.0, 420.0
"""Seconds after which a running part is interrupted, and after which no part begins."""


def card(device: torch.device) -> dict[str, object] | None:
    """Describe a GPU: its name and memory, its driver and CUDA; None for a processor."""
    if device.type != "cuda":
        return None
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "memory_gb": round(properties.total_memory / 1e9, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "driver": _output(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]).split("\n")[0],
        "cuda": torch.version.cuda,
    }


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Interrupt the block after ``seconds``.

    Raises:
        SetAsideError: at that moment, or as soon as a library that is running then returns to Python.
    """

    def break_off(signum: int, frame: object) -> None:
        raise SetAsideError(f"broken off: {BUDGET:.0f} s are over")

    before = signal.signal(signal.SIGALRM, break_off)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_part(name: str, device: torch.device, small: bool, seconds: float = BUDGET) -> dict[str, Any]:
    """Measure a part; return its seconds with its figures, the reason why it was set aside, or its error.

    Args:
        name: name of the part.
        device: device to measure on.
        small: True for toy sizes.
        seconds: time after which the part is interrupted.
    """
    module, function = PARTS[name]
    started = time.perf_counter()
    found: dict[str, Any]
    try:
        measure: Callable[[torch.device, bool], list[Figure]] = getattr(import_module(module), function)
        with at_most(seconds):
            found = {"figures": [asdict(figure) for figure in measure(device, small)]}
    except (ImportError, SetAsideError) as error:
        found = {"set_aside": str(error)}
    except Exception as error:  # noqa: BLE001 - the other parts are to be measured all the same
        traceback.print_exc()
        found = {"failed": f"{type(error).__name__}: {error}"[:500]}
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return {"seconds": round(time.perf_counter() - started, 1), **found}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the parts one after another; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("output/gpu.json"), help="file to write")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="toy sizes, for a test of this script")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--commit", default="", help="of the project, where git does not say")
    options = parser.parse_args(arguments)
    device, started = torch.device(options.device), time.perf_counter()
    record: dict[str, Any] = {
        "title": "gpu",
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "command": command(),
        "commit": options.commit or commit(),
        "card": card(device),
        "machine": machine(),
        "parts": {},
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for name in options.parts:
        spent = time.perf_counter() - started
        if spent > LAST_START:
            record["parts"][name] = {"seconds": 0.0, "set_aside": f"no time is left of {BUDGET:.0f} s"}
        else:
            record["parts"][name] = run_part(name, device, options.small, BUDGET - spent)
        record["seconds"] = round(time.perf_counter() - started, 1)
        options.output.write_text(json.dumps(record, indent=1))
        print(name, json.dumps(record["parts"][name], indent=1), flush=True)
    return int(any("failed" in part for part in record["parts"].values()))


def commit() -> str:
    """Return the commit of this checkout, with a plus if tracked files have changed; '' if git cannot tell."""
    changed = _output(["git", "status", "--porcelain", "--untracked-files=no"])
    return _output(["git", "rev-parse", "--short=12", "HEAD"]) + "+" * bool(changed)


def _output(words: Sequence[str]) -> str:
    """Return the output of a command; '' if it cannot run."""
    try:
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


if __name__ == "__main__":
    raise SystemExit(main())
