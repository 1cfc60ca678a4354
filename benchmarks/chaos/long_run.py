"""An hour of training on the demo's data, over and over: does memory grow, is anything left behind?

    python -m benchmarks.chaos.long_run [--minutes 60] [--output output/bench]

It runs jobs/pretrain.py as a user does, with two workers, two assignment shards and a toy network. The crops have the
demo's length, so that an epoch ends every few seconds, with its checkpoint, clustering and new stream. When the minutes
are over, the run gets SIGTERM. Memory is the part that a process shares with no other (RSS without the object store's
mapped pages), summed over the processes of a kind. Ray itself keeps a record of every task and of every execution of a
data set, which several short epochs share. This growth is reported per epoch and not judged: the GCS and agents ("Ray
itself") and Ray Data's own actors ("other Ray workers").
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError

import psutil

from benchmarks.measure import Figure, figure, report
from unfused_ray.config import CheckpointConfig
from unfused_ray.runs.run import Run

ROOT = Path(__file__).parents[2]
_SAMPLE_SECONDS = 10.0
_KINDS = ("RayTrainWorker", "AssignmentActor", "_ShardActor", "CoordinatorActor", "TrainController", "SplitCoordinator")
_LOGS = "Ray's logs, MB"
"""Size of the logs, which grow until Ray rotates them."""
_FLAT_SHARE = 0.02
"""Largest growth in the run's later half, as a share of the median, at which a kind of process counts as flat."""
_FLAT_MB = 10.0
"""The same limit in MB, which allows for the allocator; the larger of the two counts."""
_KEPT_BY_RAY = ("Ray itself, MB", "other Ray workers, MB", "SplitCoordinator, MB")

Sample = dict[str, float]


def main() -> None:
    """Train, sample, stop and report; exit with code 1 if something grows or is left behind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "bench")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="unfused-ray-bench-") as name:
        folder = Path(name)
        (folder / "tmp").mkdir()
        sources = [_prepared(folder, task) for task in ("drums", "languages")]
        process = _start(folder, "jobs/pretrain.py", "tiny", "--data", *sources, *_settings(folder))
        try:
            samples, seen = watch(folder, process, options.minutes)
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=300)
        finally:
            process.kill()
        status = Run(str(folder / "run")).status()
        figures, verdicts = judge(samples)
        left = {
            "processes left": sum(_still_runs(one) for one in seen),
            # Ray keeps the logs of every session, and torch keeps a cache.
            "temporary files left": sum(
                not path.name.startswith(("ray", "torchinductor_")) for path in (folder / "tmp").iterdir()
            ),
            "lease left": float((folder / "run" / "lease.json").exists()),
        }
        verdicts |= {name: count == 0 for name, count in left.items()}
        verdicts["ended by SIGTERM with a checkpoint"] = (
            code == 143 and status is not None and status.state == "stopped"
        )
        figures += [Figure(name, count, "", reach="0") for name, count in left.items()]
        report("long run", figures, options.output)
    for name, holds in verdicts.items():
        print(f"{'holds' if holds else 'FAILS'}: {name}")
    sys.exit(not all(verdicts.values()))


def watch(folder: Path, process: subprocess.Popen[bytes], minutes: float) -> tuple[list[Sample], set[psutil.Process]]:
    """Return samples of the run from its first checkpoint on, and every process of it that was seen.

    Raises:
        RuntimeError: the run ends too early.
    """
    samples: list[Sample] = []
    seen: set[psutil.Process] = set()
    driver = psutil.Process(process.pid)
    while not list((folder / "run" / "checkpoints").glob("*/manifest.json")):
        _wait(process)
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        _wait(process)
        tree = [driver, *driver.children(recursive=True)]
        seen.update(tree)
        samples.append({"minutes": minutes - (end - time.monotonic()) / 60, **sample(folder / "run", tree)})
    return samples, seen


def sample(run: Path, tree: Sequence[psutil.Process]) -> Sample:
    """Take one sample: memory (MB), processes, open files, and the run's files, checkpoints, assignments and epochs."""
    found: Sample = {"processes": len(tree), "open files": 0.0}
    session = ""
    for index, process in enumerate(tree):
        try:
            command, memory = process.cmdline(), process.memory_info()
            found["open files"] += process.num_fds()
        except psutil.NoSuchProcess:  # a data worker that has ended meanwhile
            continue
        session = session or next((part.split("=")[1] for part in command if part.startswith("--session-dir=")), "")
        kind = "driver" if index == 0 else _kind(command)
        found[f"{kind}, MB"] = found.get(f"{kind}, MB", 0.0) + (memory.rss - memory.shared) / 1e6
    with suppress(HTTPError):  # Ray's exporter may be late on a busy machine
        found["object store, MB"] = _object_store_mb(Path(session))
    found[_LOGS] = sum(path.stat().st_size for path in (Path(session) / "logs").rglob("*") if path.is_file()) / 1e6
    found["files of the run"] = sum(len(files) for _, _, files in os.walk(run))  # rglob fails on deleted folders
    found["checkpoints"] = len(list((run / "checkpoints").glob("*/manifest.json")))
    found["assignments"] = len(list((run / "assignments").glob("epoch-*")))
    found["epochs"] = int(max(path.name for path in (run / "checkpoints").iterdir())[1:5])
    return found


def judge(samples: Sequence[Sample]) -> tuple[list[Figure], dict[str, bool]]:
    """Return the figures of all samples, and which conditions hold."""
    rule = CheckpointConfig()
    later = samples[len(samples) // 2 :]
    epochs = max(1.0, later[-1]["epochs"] - later[0]["epochs"])
    figures = [Figure("epochs, each with a checkpoint", samples[-1]["epochs"], "")]
    verdicts = {
        # One may be written, or deleted, while they are counted.
        "checkpoints to the rule": max(one["checkpoints"] for one in samples) <= rule.keep + 1,
        "assignments to the rule": max(one["assignments"] for one in samples) <= rule.keep_assignments + 2,
    }
    for name in dict.fromkeys(name for one in later for name in one):
        if name in ("minutes", "epochs"):
            continue
        having = [one for one in later if name in one]
        values = [one[name] for one in having]
        slope = statistics.linear_regression([one["minutes"] for one in having], values).slope
        growth = slope * (later[-1]["minutes"] - later[0]["minutes"])
        if name == _LOGS:
            figures.append(Figure(f"{name}, growth an hour", 60 * slope, ""))
            continue
        if name in _KEPT_BY_RAY:
            figures += [
                figure(f"{name}, later half", values, ""),
                Figure(f"{name}, growth an epoch", growth / epochs, ""),
            ]
            continue
        allowed = max(_FLAT_SHARE * statistics.median(values), _FLAT_MB if name.endswith("MB") else 1.0)
        verdicts[f"flat: {name}"] = growth <= allowed
        figures += [
            figure(f"{name}, later half", values, ""),
            Figure(f"{name}, growth", growth, "", reach=f"≤ {allowed:.3g}"),
        ]
    return figures, verdicts


def _kind(command: Sequence[str]) -> str:
    """Return the kind of one of the run's processes, from its command line."""
    actor = re.match(r"ray::(\w+)", command[0] if command else "")
    if actor is None:
        return "Ray itself"
    return actor[1] if actor[1] in _KINDS else "other Ray workers"


def _object_store_mb(session: Path) -> float:
    """Return the MB of objects in the store, in memory and on disk, as Ray's exporter reports them."""
    port = next(session.glob("metrics_export_port_*")).read_text()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    values = re.findall(r"^ray_object_store_memory\{[^\n]*\} (\S+)$", text, re.MULTILINE)
    return sum(map(float, values)) / 1e6


def _settings(folder: Path) -> list[str]:
    given = {
        "--output": str(folder / "run"),
        "--epochs": "100000",
        "--crop.seconds": "0.95",
        "--runtime.kind": "workers",
        "--runtime.num-workers": "2",
        "--runtime.threads": "1",
        "--method.assignment-shards": "2",
    }
    return [part for argument in given.items() for part in argument]


def _prepared(folder: Path, task: str) -> str:
    source, output = ROOT / "recordings" / f"{task}.tar", str(folder / task)
    if _start(folder, "jobs/prepare.py", "--source", str(source), "--output", output).wait():
        raise RuntimeError(f"jobs/prepare.py failed on {source}: see its output above")
    return output


def _start(folder: Path, *command: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "UNFUSED_RAY_HOME": str(folder), "TMPDIR": str(folder / "tmp")}
    return subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment)


def _wait(process: subprocess.Popen[bytes]) -> None:
    time.sleep(_SAMPLE_SECONDS)
    if process.poll() is not None:
        raise RuntimeError(f"the run ended before its time, with code {process.returncode}: see its output above")


def _still_runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


if __name__ == "__main__":
    main()
