"""Times the start of a run on the embedded recordings, from the command to the first training step, in both runtimes.

    python -m benchmarks.speed.start [--recipe demo] [--rounds 3] [--data SHARDS …] [--output output/bench]

Every round runs jobs/pretrain.py as a user does and ends it after its first step; the runtimes take turns. The run
itself records when it reaches each milestone (start.json). The recipe's first step comes after an embedding of every
clip; this computation lies between "first block" and "labels".
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Figure, figure, report
from unfused_ray.runs.start_times import START, read_start_times

ROOT = Path(__file__).parents[2]
REACH = {"in-process": "≤ 12", "workers": "≤ 25"}
_PATIENCE_SECONDS = 180.0


def prepare(folder: Path) -> tuple[list[str], list[Figure]]:
    """Make shards of the embedded recordings; return their folders and the time that each command took."""
    shards, figures = [], []
    for name in ("drums", "languages"):
        shards.append(str(folder / "shards" / name))
        started = time.perf_counter()
        source = str(ROOT / "recordings" / f"{name}.tar")
        _call("prepare.py", "--source", source, "--output", shards[-1], home=folder).wait()
        figures.append(Figure(f"jobs/prepare.py, {name}: whole command", time.perf_counter() - started, "s"))
    return shards, figures


def milestones(recipe: str, kind: str, shards: list[str], folder: Path) -> dict[str, float]:
    """Return the seconds from the command to each milestone up to the first step, by name.

    Raises:
        RuntimeError: the run has not got that far; the message has the end of its output.
    """
    run = Path(tempfile.mkdtemp(dir=folder))
    command = [recipe, "--data", *shards, "--output", str(run), "--runtime.kind", kind]
    process = _call("pretrain.py", *command, home=folder)
    start, deadline = run / START, time.monotonic() + _PATIENCE_SECONDS
    while not start.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate()
    if not start.exists():
        raise RuntimeError(f"no first step after {_PATIENCE_SECONDS:.0f} s of {' '.join(command)}: {output[-2000:]}")
    return read_start_times(str(run))


def _call(job: str, *arguments: str, home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "jobs" / job), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "UNFUSED_RAY_HOME": str(home)},
    )


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", nargs="+", help="prepared sources; the embedded recordings are prepared by default")
    parser.add_argument("--output", type=Path, default=Path("output/bench"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="unfused-ray-start-") as name:
        folder = Path(name)
        shards, figures = (args.data, []) if args.data else prepare(folder)
        rounds: dict[str, list[dict[str, float]]] = {kind: [] for kind in REACH}
        for _ in range(args.rounds):
            for kind, reached in rounds.items():
                reached.append(milestones(args.recipe, kind, shards, folder))
    for kind, reached in rounds.items():
        for milestone in reached[0]:
            reach = REACH[kind] if milestone == "first step" else ""
            figures.append(figure(f"{kind}: {milestone}", [one[milestone] for one in reached], "s", reach))
    report("start", figures, args.output)


if __name__ == "__main__":
    main()
