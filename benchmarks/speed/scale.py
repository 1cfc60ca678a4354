"""Growth with the data: memory of driver and shard, planning, the start of an epoch, ingest; 10³ to 10⁷ clips.

    python -m benchmarks.speed.scale [--clips 1000 … 10000000] [--files 100 1000 10000] [--output output/bench]

The manifests are synthetic, of 10 s clips in row groups of 16 MB (50 clips). All their shards are the same file of
short clips, so that reading is real. Every number of clips is measured in a separate process.
"""

from __future__ import annotations

import argparse
import multiprocessing
import pickle
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import soundfile

from benchmarks.measure import Figure, figure, report
from unfused_ray import cluster, storage
from unfused_ray.api import prepare
from unfused_ray.audio.decode import encode_flac
from unfused_ray.clustering.bank_shard import BankShard
from unfused_ray.clustering.rows import BLOCK_ROWS, normalize_rows
from unfused_ray.config import BatchConfig, CropConfig, FrontEndConfig, PrepareConfig
from unfused_ray.data.shards.format import SCHEMA, Manifest, Shard, Statistics
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.data.stream.plan import (
    BLOCKS_PER_TASK,
    MAX_TASKS_PER_EXECUTION,
    UNREAD,
    Execution,
    Pass,
    Planner,
    Segment,
)
from unfused_ray.data.stream.prefetch import LocalSource
from unfused_ray.data.stream.ray_source import RaySource, execution_options, make_dataset
from unfused_ray.data.stream.read import BlockReader

CLIPS_PER_SHARD = 4_000
CLIPS_PER_UNIT = 50
DIM = 128
MAX_SHARD_ROWS = 1_250_000
"""Rows of the largest assignment shard measured, 320 MB of embeddings; more clips take more shards."""
FRONT_END = FrontEndConfig()
CROP = CropConfig()
SAMPLES = CROP.num_samples(FRONT_END.sample_rate)
BATCH = BatchConfig(block=8, blocks_per_step=4)
"""Small batches, so that a whole execution of Ray Data, 256 read tasks, takes seconds."""
REPEATS = 3


def write_shard(folder: Path) -> Shard:
    """Write the one file that serves as every shard of the synthetic manifests: noise of 0.3 s."""
    noise = np.random.default_rng(0).integers(-1000, 1000, (CLIPS_PER_SHARD, 4_800), np.int16)
    rows = [
        {"audio": encode_flac(pcm, FRONT_END.sample_rate), "num_samples": len(pcm), "key": "", "labels": []}
        | {"split": "", "group": ""}
        for pcm in noise
    ]
    path = folder / "shard.parquet"
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path, row_group_size=CLIPS_PER_UNIT, compression="none")
    units = (CLIPS_PER_UNIT,) * (CLIPS_PER_SHARD // CLIPS_PER_UNIT)
    statistics = {FRONT_END.digest(): Statistics(1, 0.0, 1.0)}
    sha256 = storage.sha256_file(str(path))
    return Shard(path.name, "", units, 10.0 * CLIPS_PER_SHARD, path.stat().st_size, sha256, statistics)


def write_manifest(folder: Path, num_clips: int) -> str:
    """Write a source of ``num_clips`` clips; return its folder."""
    folder.mkdir()
    shard = write_shard(folder)
    whole, rest = divmod(num_clips, CLIPS_PER_SHARD)
    shards = [shard] * whole
    if rest:
        shards.append(replace(shard, row_groups=shard.row_groups[: -(-rest // CLIPS_PER_UNIT)]))
    Manifest(str(folder), tuple(shards), {}, PrepareConfig().model_dump(mode="json")).save()
    return str(folder)


def memory() -> float:
    """Return the megabytes that belong to this process alone."""
    return psutil.Process().memory_full_info().uss / 1e6


def seconds(work: Callable[[], Any]) -> list[float]:
    """Return the seconds of each of several calls."""
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return taken


def last_segment(planner: Planner, epoch: int) -> Segment:
    """Return the last part of a training pass, as long as one whole execution of Ray Data."""
    steps = planner.num_steps("train")
    longest = MAX_TASKS_PER_EXECUTION * BLOCKS_PER_TASK // planner.batch.blocks_per_step
    first = max(0, steps - longest)
    return Segment(Pass("train", epoch, first), steps - first)


def reader() -> BlockReader:
    """Make the reader that carries out the plans."""
    return BlockReader(0, BATCH.block, CROP, SAMPLES)


# ------------------------------------------------------------------------------------- each in a process of its own


def of_driver(folder: str) -> list[Figure]:
    """Measure the memory and time that a source costs the driver, and every actor that plans."""
    before, started = memory(), time.perf_counter()
    index = ClipIndex.load([folder], ("",))
    planner = Planner(index, 0, BATCH)
    loaded = time.perf_counter() - started
    segment = last_segment(planner, 0)
    planning = seconds(lambda: planner.read_tasks(segment))
    num_tasks = len(planner.read_tasks(segment))
    held = memory() - before
    source, epochs = LocalSource(planner, reader()), iter(range(REPEATS))
    first_block = seconds(lambda: next(iter(source.blocks(last_segment(planner, next(epochs)).pass_))))
    of = f"{index.num_clips:.0e} clips: "
    return [
        Figure(of + "memory of the driver for them", held, "MB"),
        Figure(of + "unit list, sent to every actor that plans", len(pickle.dumps(index)) / 1e6, "MB"),
        Figure(of + "reading the manifest", 1e3 * loaded, "ms"),
        figure(f"{of}planning an execution, {num_tasks} read tasks", [1e3 * value for value in planning], "ms"),
        figure(of + "first block in this process", [1e3 * value for value in first_block], "ms"),
    ]


def of_worker(folder: str) -> list[Figure]:
    """Measure the memory that a reading process gains from its 20th to its 200th block."""
    planner = Planner(ClipIndex.load([folder], ("",)), 0, BATCH)
    blocks = LocalSource(planner, reader()).blocks(Pass("train", 0))
    for _ in islice(blocks, 20):
        pass
    before = memory()
    for _ in islice(blocks, 180):
        pass
    growth = memory() - before
    return [Figure(f"{planner.index.num_clips:.0e} clips: memory that reading 180 blocks adds", growth, "MB")]


def of_shard(num_clips: int) -> list[Figure]:
    """Measure the memory of one assignment shard after all its rows were pushed; by arithmetic, 2·D bytes per clip."""
    num_shards = -(-num_clips // MAX_SHARD_ROWS)
    before = memory()
    shard = BankShard(0, num_shards, num_clips, DIM, threads=1)
    rows = normalize_rows(np.random.default_rng(0).standard_normal((BLOCK_ROWS, DIM)))
    for block in shard.blocks.tolist():
        clip_ids = np.arange(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, num_clips))
        shard.push(clip_ids, rows[: len(clip_ids)])
    of = f"{num_clips:.0e} clips: "
    return [
        Figure(f"{of}memory of one of {num_shards} assignment shards", memory() - before, "MB"),
        Figure(f"{of}label table of a head, one copy a node (arithmetic)", 4 * num_clips / 1e6, "MB"),
    ]


# ------------------------------------------------------------------------------------------------------------ on Ray


class Position:
    """The part of the run's coordinator that a training's stream needs: it knows what is to be read next."""

    def __init__(self) -> None:
        self._execution = UNREAD

    def set(self, execution: Execution) -> None:
        """Set what is to be read next."""
        self._execution = execution

    def get(self) -> Execution:
        """Return what is to be read next."""
        return self._execution


@dataclass(frozen=True)
class Asked:
    """A function that asks the coordinator what is to be read next."""

    actor: Any

    def __call__(self) -> Execution:
        """Ask for it and wait."""
        execution: Execution = ray.get(self.actor.get.remote())
        return execution


def of_epoch(folder: str) -> list[Figure]:
    """Measure the seconds from asking for a later epoch to its first block, through a whole execution of Ray Data."""
    planner = Planner(ClipIndex.load([folder], ("",)), 0, BATCH)
    position = ray.remote(Position).options(num_cpus=0).remote()
    dataset = make_dataset(planner, reader(), Asked(position))
    dataset.context.execution_options = execution_options()
    (iterator,) = dataset.streaming_split(1, equal=True)
    source = RaySource(iterator, planner, SAMPLES, 0, 1, lambda execution: ray.get(position.set.remote(execution)))
    taken = []
    for epoch in range(1 + REPEATS):
        started = time.perf_counter()
        blocks = source.stream([last_segment(planner, epoch).pass_])
        next(blocks)
        taken.append(time.perf_counter() - started)
        for _ in blocks:
            pass
    return [figure(f"{planner.index.num_clips:.0e} clips: first block of a later epoch, Ray Data", taken[1:], "s")]


@dataclass(frozen=True)
class Ingest:
    """Time and memory of an ingest."""

    files: int
    rate: float
    """Clips per second."""
    driver: float
    worker: float
    """MB: what the driver holds more afterwards (``driver``), and what the largest task's process holds
    (``worker``)."""


def ingest(folder: Path, num_files: int) -> Ingest:
    """Ingest ``num_files`` files of 0.3 s."""
    source = folder / f"files-{num_files}"
    source.mkdir()
    noise = np.random.default_rng(0).integers(-1000, 1000, 4_800, np.int16)
    for number in range(num_files):
        soundfile.write(source / f"{number:06d}.wav", noise, FRONT_END.sample_rate)
    before, started = memory(), time.perf_counter()
    prepare(PrepareConfig(source=str(source), output=str(folder / f"shards-{num_files}")))
    taken = time.perf_counter() - started
    workers = [child for child in psutil.Process().children(recursive=True) if "ray::" in "".join(child.cmdline())]
    largest = max((child.memory_full_info().uss for child in workers), default=0) / 1e6
    return Ingest(num_files, num_files / taken, memory() - before, largest)


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[10**power for power in range(3, 8)])
    parser.add_argument("--files", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--output", type=Path, default=Path("output/bench"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="unfused-ray-scale-") as name:
        folders = [write_manifest(Path(name, str(clips)), clips) for clips in args.clips]
        figures = compared(args.clips, folders)
        with cluster.session():
            for source in (folders[0], folders[-1]):
                figures += of_epoch(source)
            ingest(Path(name), 10)  # the first ingest pays for imports
            for one in (ingest(Path(name), files) for files in args.files):
                of = f"{one.files:,} files: "
                figures.append(Figure(of + "ingest", one.rate, "clips/s"))
                figures.append(Figure(of + "memory of the driver for the ingest", one.driver, "MB"))
                figures.append(Figure(of + "memory of the largest ingest task", one.worker, "MB"))
    report("scale", figures, args.output)


def compared(clips: Sequence[int], folders: Sequence[str]) -> list[Figure]:
    """Measure everything that needs no Ray, each in a separate process, and how much the driver's memory grows."""
    figures: list[Figure] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as processes:
        drivers = [processes.submit(of_driver, folder).result() for folder in folders]
        for num_clips, folder, driver in zip(clips, folders, drivers, strict=True):
            figures += driver
            figures += processes.submit(of_worker, folder).result()
            figures += processes.submit(of_shard, num_clips).result()
    growth = drivers[-1][0].value - drivers[0][0].value
    title = f"memory of the driver, {clips[-1]:.0e} against {clips[0]:.0e} clips"
    return [Figure(title, growth, "MB", reach="≤ 40"), *figures]


if __name__ == "__main__":
    main()
