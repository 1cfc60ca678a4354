"""The tests that run both on a processor and on a GPU, in a separate process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module

import torch

from benchmarks.gpu.timing import SetAsideError
from benchmarks.measure import ROOT, Figure

SECONDS = 180


def measure(device: torch.device, small: bool) -> list[Figure]:
    """Count the tests by outcome.

    Raises:
        SetAsideError: the tests do not end in time, or pytest cannot run here; with its last lines.
    """
    import_module("pytest")
    environment = {**os.environ, **({"UNFUSED_RAY_REQUIRE_GPU": "1"} if device.type == "cuda" else {})}
    chosen = "tests/gpu/test_front_end.py" if small else "tests/gpu"
    # The other tests' fixtures stay out: they need the whole project.
    command = [sys.executable, "-m", "pytest", "--confcutdir=tests/gpu", "-m", "gpu", "-p", "no:cacheprovider", chosen]
    try:
        ended = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SetAsideError(f"the tests have not ended after {SECONDS} s") from error
    counts = dict.fromkeys(("passed", "failed", "error", "skipped"), 0)
    # The last line may be anything: failures and reasons for skips are listed after the dots.
    progress = [line for line in ended.stdout.splitlines() if re.fullmatch(r"[.FEsx]+ *(\[ *\d+%\])?", line)]
    for line in progress:
        for letter, outcome in {".": "passed", "F": "failed", "E": "error", "s": "skipped"}.items():
            counts[outcome] += line.split("[")[0].count(letter)
    if not sum(counts.values()):
        raise SetAsideError(" / ".join((ended.stdout + ended.stderr).strip().splitlines()[-3:]))
    failures = [line for line in ended.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    none = {"failed": "≤ 0", "error": "≤ 0"}
    figures = [Figure(f"tests: {outcome}", count, "", reach=none.get(outcome, "")) for outcome, count in counts.items()]
    return figures + [Figure(line, 1, "") for line in failures]
