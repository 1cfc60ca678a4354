"""Ingest of WAV, FLAC and MP3 files: seconds of audio decoded, encoded and counted per second of one core.

    python -m benchmarks.speed.ingest [--before CHECKOUT] [--rounds 7] [--clips 40] [--output output/bench]

With ``--before``, another checkout of the project writes the same shards by turns, and the ratios become figures too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.measure import Figure, by_turns, figure, ratio, report

ROOT = Path(__file__).parents[2]
CODECS = {"WAV": "PCM_16", "FLAC": "PCM_16", "MP3": "MPEG_LAYER_III"}
CLIPS = {"10 s, 44.1 kHz, stereo": (10, 44_100, 2), "2 s, 16 kHz, mono": (2, 16_000, 1)}
REACH = {"WAV": "≥ 0.9", "FLAC": "≥ 0.9"}
# For each line of input, which names a folder, writes one shard of the folder's clips.
WORKER = """
import sys, tempfile
from unfused_ray.config import PrepareConfig
from unfused_ray.data.shards.write import ShardClips, ShardWriter
from unfused_ray.data.sources.find import find
from unfused_ray.data.sources.listing import list_audio
from unfused_ray.machine.threads import one_thread
with tempfile.TemporaryDirectory() as output, one_thread():
    for line in sys.stdin:
        config = PrepareConfig(source=line.strip(), output=output)
        ShardWriter(config)(0, ShardClips(list_audio(find(config.source)).items, 1_000))
        print("done", flush=True)
"""


def write_clips(folder: Path, container: str, clip: tuple[int, int, int], count: int) -> None:
    """Write clips of noise that is as loud as music and differs between the channels."""
    seconds, rate, channels = clip
    folder.mkdir(parents=True)
    for number in range(count):
        wave = np.random.default_rng(number).normal(0, 0.1, (seconds * rate, channels)).cumsum(axis=0)
        wave = (wave - wave.mean(axis=0)) / np.abs(wave).max() / 2
        path = folder / f"{number:03d}.{container.lower()}"
        soundfile.write(path, wave, rate, format=container, subtype=CODECS[container])


def worker(stack: ExitStack, checkout: Path) -> Callable[[Path], None]:
    """Start a process of a checkout; return a function that makes it write a folder's clips."""
    process = stack.enter_context(
        subprocess.Popen(
            [sys.executable, "-c", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout)},
        )
    )
    assert process.stdin is not None and process.stdout is not None
    stack.callback(process.stdin.close)

    def write(folder: Path) -> None:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{folder}\n")
        process.stdin.flush()
        if process.stdout.readline() != "done\n":
            raise RuntimeError(f"the worker of {checkout} has ended")

    return write


def measure(folder: Path, checkouts: dict[str, Path], rounds: int, count: int) -> list[Figure]:
    """Measure each kind of clip in each container."""
    figures: list[Figure] = []
    with ExitStack() as stack:
        workers = {name: worker(stack, checkout) for name, checkout in checkouts.items()}
        for title, clip in CLIPS.items():
            for container in CODECS:
                clips = folder / container / title
                write_clips(clips, container, clip, count)
                seconds = by_turns({name: partial(write, clips) for name, write in workers.items()}, rounds)
                for name, taken in seconds.items():
                    speeds = [clip[0] * count / second for second in taken]
                    figures.append(figure(f"{container}, {title}: {name}", speeds, "s/s"))
                if "before" in seconds:
                    name = f"{container}, {title}: speed now | before"
                    figures.append(ratio(name, seconds["before"], seconds["now"], REACH.get(container, "")))
    return figures


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another checkout of the project")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--output", type=Path, default=Path("output/bench"))
    args = parser.parse_args()
    checkouts = {"now": ROOT} | ({"before": args.before.resolve()} if args.before else {})
    with tempfile.TemporaryDirectory(prefix="unfused-ray-ingest-") as folder:
        figures = measure(Path(folder), checkouts, args.rounds, args.clips)
    report("ingest", figures, args.output)


if __name__ == "__main__":
    main()
