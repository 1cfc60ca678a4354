"""Streams of random crops: this project's against the field's loaders, by turns.

    python -m benchmarks.speed.stream [--data SHARDS] [--data-10s SHARDS] [--clips 8192] [--rounds 3]

Short clips are the embedded recordings, and 10 s clips are made from them, unless prepared sources are given. "Per
core" means per second of CPU time, summed over all processes, so that other work on the machine does not show in it.
The field's loader (reference.py) also makes log-mels and two augmented views, as its scripts do on the CPU; all others
yield crops.
"""

from __future__ import annotations

import argparse
import io
import logging
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import ray
import ray.data
import soundfile
import torch
from soundfile import _ffi, _snd  # libsndfile itself, without the Python around it
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from benchmarks.clips import long_clips, repeated, short_clips, write_files
from benchmarks.measure import Figure, figure, ratio, report
from benchmarks.speed.reference import FrontEnd, make_loader
from unfused_ray import cluster
from unfused_ray.config import AugmentConfig, BatchConfig, CropConfig, FrontEndConfig
from unfused_ray.data.shards.format import Manifest
from unfused_ray.data.shards.index import ClipIndex, Unit
from unfused_ray.data.stream.plan import UNREAD, Execution, Pass, Planner
from unfused_ray.data.stream.prefetch import LocalSource, Prefetcher
from unfused_ray.data.stream.ray_source import RaySource, execution_options, make_dataset
from unfused_ray.data.stream.read import BlockReader

BATCH = BatchConfig()
CROP = CropConfig()
SAMPLES = CROP.num_samples(16_000)
PACED_SECONDS = 0.1
"""Seconds of a consumer's work on a block, if it works: a sixth of the time that training on it takes on two cores."""
PREFETCHED_BLOCKS = 8


@dataclass(frozen=True)
class Epoch:
    """The time that an epoch took."""

    clips: int
    first: float
    """Seconds to the first batch."""
    wall: float
    cpu: float
    """CPU seconds of all processes."""


Contender = Callable[[int], tuple[int, float]]
"""A function that runs the epoch of a given number; it returns the epoch's clips and the seconds to its first batch."""


def timed(contender: Contender, epoch: int) -> Epoch:
    """Time one epoch of a contender."""
    before, started = cpu_seconds(), time.perf_counter()
    num_clips, first = contender(epoch)
    wall = time.perf_counter() - started
    return Epoch(num_clips, first, wall, sum(cpu - before.get(pid, 0) for pid, cpu in cpu_seconds().items()))


def drain(batches: Iterable[int]) -> tuple[int, float]:
    """Take every batch, each given by its number of clips; return the clips, and the seconds to the first batch."""
    started, first, num_clips = time.perf_counter(), 0.0, 0
    for batch in batches:
        first = first or time.perf_counter() - started
        num_clips += batch
    return num_clips, first


def cpu_seconds() -> dict[int, float]:
    """Return the CPU time so far of this process and all that it started, including Ray's, by process."""
    me, seconds = psutil.Process(), {}
    for process in [me, *me.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:  # it has ended since it was listed
            continue
        seconds[process.pid] = times.user + times.system
    return seconds


# ------------------------------------------------------------------------------------------------ this project's way


class Position:
    """The part of the run's coordinator that a training's stream needs: it knows what is to be read next."""

    def __init__(self) -> None:
        self.execution = UNREAD

    def set(self, execution: Execution) -> None:
        """Set what is to be read next."""
        self.execution = execution

    def get(self) -> Execution:
        """Return what is to be read next."""
        return self.execution


class Consumer:
    """A train worker that does nothing with its blocks."""

    def __init__(
        self, iterator: ray.data.DataIterator, planner: Planner, rank: int, world: int, position: ray.actor.ActorHandle
    ) -> None:
        def set_execution(execution: Execution) -> None:
            ray.get(position.set.remote(execution))

        self.source = RaySource(iterator, planner, SAMPLES, rank, world, set_execution)

    def epoch(self, number: int) -> tuple[int, float]:
        """Run an epoch, as a :data:`Contender`."""
        stream = self.source.stream([Pass("train", number)])
        return drain(len(block.clip_ids) for _, block in stream if block is not None)

    def first_waits(self, epochs: int) -> list[float]:
        """Return seconds to the first block of all epochs but the first, through the Prefetcher, working on each
        block."""
        passes = [Pass("train", epoch) for epoch in range(epochs)]
        prefetcher = Prefetcher(self.source, passes, PREFETCHED_BLOCKS)
        waits = []
        for pass_ in passes:
            started = time.perf_counter()
            for number, _ in enumerate(prefetcher.blocks(pass_)):
                if number == 0:
                    waits.append(time.perf_counter() - started)
                time.sleep(PACED_SECONDS)
        prefetcher.close()
        return waits[1:]


class RayStream:
    """The Ray Dataset of a run and its consumers, each a process as in training."""

    def __init__(self, index: ClipIndex, world: int) -> None:
        planner = Planner(index, 0, BATCH)
        position = ray.remote(num_cpus=0)(Position).remote()
        dataset = make_dataset(planner, make_reader(), lambda: ray.get(position.get.remote()))
        dataset.context.execution_options = execution_options()
        self.consumers = [
            ray.remote(num_cpus=0)(Consumer).remote(split, planner, rank, world, position)
            for rank, split in enumerate(dataset.streaming_split(world, equal=True))
        ]

    def epoch(self, number: int) -> tuple[int, float]:
        """Run an epoch, as a :data:`Contender`; the first batch counts when all consumers have theirs."""
        found = ray.get([consumer.epoch.remote(number) for consumer in self.consumers])
        return sum(num_clips for num_clips, _ in found), max(first for _, first in found)

    def first_waits(self, epochs: int) -> list[float]:
        """Return seconds to the first block of every epoch after the first, each the longest of all consumers."""
        return [
            max(waits) for waits in zip(*ray.get([c.first_waits.remote(epochs) for c in self.consumers]), strict=True)
        ]


def make_reader() -> BlockReader:
    """Make the reader of this project's blocks."""
    return BlockReader(seed=0, block_size=BATCH.block, crop=CROP, crop_samples=SAMPLES)


def local_epoch(index: ClipIndex, number: int) -> tuple[int, float]:
    """Run an epoch in this process, without Ray."""
    source = LocalSource(Planner(index, 0, BATCH), make_reader())
    return drain(len(block.clip_ids) for block in source.blocks(Pass("train", number)))


# ------------------------------------------------------------------------------------------------------- other ways


class ShardClips(IterableDataset[np.ndarray]):
    """A plain torch dataset over the same shards: row group by row group, soundfile clip by clip."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self.units = list(units)

    def __iter__(self) -> Iterator[np.ndarray]:
        worker = get_worker_info()
        units = self.units[worker.id :: worker.num_workers] if worker else list(self.units)
        random.shuffle(units)
        for unit in units:
            rows = pq.ParquetFile(unit.uri).read_row_group(unit.row_group, columns=["audio", "num_samples"]).to_pylist()
            random.shuffle(rows)
            for row in rows:
                yield random_crop(row["audio"], row["num_samples"])


def random_crop(flac: bytes, num_samples: int) -> np.ndarray:
    """Return a crop as soundfile reads it; short clips are repeated."""
    length = min(SAMPLES, num_samples)
    start = random.randint(0, num_samples - length)
    crop, _ = soundfile.read(io.BytesIO(flac), frames=length, start=start, dtype="int16")
    return np.resize(crop, SAMPLES)


def decode_batch(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Decode a batch, as a user's function for ``map_batches`` would."""
    return {"crop": np.stack([random_crop(*row) for row in zip(batch["audio"], batch["num_samples"], strict=True)])}


def read_parquet(paths: Sequence[str]) -> Contender:
    """Make a contender of ``ray.data.read_parquet`` and ``map_batches``, at their defaults."""
    dataset = ray.data.read_parquet(list(paths), columns=["audio", "num_samples"]).map_batches(decode_batch)
    return lambda _: drain(len(batch["crop"]) for batch in dataset.iter_batches(batch_size=BATCH.block))


def loader_epoch(loader: DataLoader[Any], _: int) -> tuple[int, float]:
    """Run an epoch of a torch DataLoader."""
    return drain(len(batch[0]) if isinstance(batch, list) else len(batch) for batch in loader)


def libsndfile_epoch(files: Sequence[Path], num_samples: Sequence[int], _: int) -> tuple[int, float]:
    """Run libsndfile alone: open, seek, read and close from the page cache, called in C."""
    crop = np.empty(SAMPLES, np.int16)
    pointer = _ffi.cast("short *", crop.ctypes.data)

    def decode(path: Path, available: int) -> int:
        file = _snd.sf_open(str(path).encode(), _snd.SFM_READ, _ffi.new("SF_INFO *"))
        length = min(SAMPLES, available)
        _snd.sf_seek(file, random.randint(0, available - length), 0)
        assert _snd.sf_readf_short(file, pointer, length) == length
        _snd.sf_close(file)
        return 1

    return drain(map(decode, files, num_samples))


def make_contenders(manifests: list[Manifest], args: argparse.Namespace, folder: Path) -> dict[str, Contender]:
    """Make all contenders on the clips of some sources."""
    index, few = repeated(manifests, args.clips), repeated(manifests, args.loader_clips)
    files = write_files(ClipIndex(manifests), 4 * args.slow_clips, folder)
    front_end = FrontEnd(FrontEndConfig(), CROP, AugmentConfig(), -7.0, 4.0)
    plain = partial(DataLoader, ShardClips(few.units), BATCH.block)
    paths = sorted({unit.uri for unit in index.units})
    contenders: dict[str, Contender] = {
        "libsndfile alone": partial(libsndfile_epoch, files, [soundfile.info(file).frames for file in files]),
        "ours, in-process": partial(local_epoch, index),
        "ours, 1 consumer": RayStream(index, 1).epoch,
        "ours, 2 consumers": RayStream(index, 2).epoch,
        "read_parquet": read_parquet(paths * (index.num_clips // sum(m.num_clips for m in manifests))),
    }
    for processes in (0, 1, 2):
        loader = plain(num_workers=processes, persistent_workers=processes > 0)
        contenders[f"DataLoader + soundfile, {processes} processes"] = partial(loader_epoch, loader)
    for processes in (0, 1, 2):
        slow = make_loader(files[::4], front_end, 2, BATCH.block, processes)
        contenders[f"librosa DataLoader with views, {processes} processes"] = partial(loader_epoch, slow)
    return contenders


REACHES: Mapping[str, tuple[str, str]] = {"short": ("≥ 1,500", "≤ 0.1"), "10 s": ("≥ 1,200", "≤ 0.1")}
"""Targets: clips/s per core, and seconds to the first batch of a later epoch, prefetched."""


def compare(length: str, manifests: list[Manifest], args: argparse.Namespace, folder: Path) -> list[Figure]:
    """Return the figures for clips of one length."""
    contenders = make_contenders(manifests, args, folder)
    epochs: dict[str, list[Epoch]] = {name: [] for name in contenders}
    for number in range(args.rounds + 1):
        for name, contender in contenders.items():
            epochs[name].append(timed(contender, number))
    later = {name: taken[1:] for name, taken in epochs.items()}  # the first epoch starts processes and fills caches
    per_core = {name: [epoch.clips / epoch.cpu for epoch in taken] for name, taken in later.items()}
    per_core_reach, first_reach = REACHES[length]
    figures = []
    for name, taken in later.items():
        reach = per_core_reach if name.startswith("ours") else ""
        figures.append(figure(f"{length}: {name}, per core", per_core[name], "clips/s", reach))
        figures.append(figure(f"{length}: {name}", [epoch.clips / epoch.wall for epoch in taken], "clips/s"))
        if name != "libsndfile alone":
            figures.append(figure(f"{length}: {name}, first batch", [epoch.first for epoch in taken], "s"))
    for world in (1, 2):
        waits = RayStream(ClipIndex(manifests), world).first_waits(args.rounds + 1)
        figures.append(figure(f"{length}: ours, {world} consumer(s), first batch, prefetched", waits, "s", first_reach))
    for name, other in (
        ("in-process", "libsndfile alone"),
        ("1 consumer", "read_parquet"),
        ("1 consumer", "librosa DataLoader with views, 0 processes"),
    ):
        above, below = per_core[f"ours, {name}"], per_core[other]
        figures.append(ratio(f"{length}: ours, {name}, per core, against {other}", above, below))
    return figures


def main() -> None:
    """Compare on short clips, then on long ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=[], help="prepared sources of short clips")
    parser.add_argument("--data-10s", nargs="*", default=[], help="prepared sources of 10 s clips")
    parser.add_argument("--clips", type=int, default=8192, help="of an epoch, at least")
    parser.add_argument("--loader-clips", type=int, default=2048, help="of an epoch of the plain DataLoader, at least")
    parser.add_argument("--slow-clips", type=int, default=192, help="of an epoch of the loader with librosa")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("output/bench"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # read_parquet logs its progress
    with tempfile.TemporaryDirectory(prefix="unfused-ray-bench-") as name, cluster.session():
        folder = Path(name)
        short = [Manifest.load(uri) for uri in args.data] or short_clips(folder / "short")
        long = [Manifest.load(uri) for uri in args.data_10s] or long_clips(folder / "long", ClipIndex(short))
        figures = compare("short", short, args, folder / "short-files")
        figures += compare("10 s", long, args, folder / "long-files")
    report("stream", figures, args.output)


if __name__ == "__main__":
    main()
