"""Checkpoints survive real faults of storage: a full disk, a read-only one, flipped bits, a failing object store."""

from __future__ import annotations

import itertools
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.faulty_store import Fault, FaultyStore
from support.runs import assert_equal_runs, tiny, train
from support.sources import write_source

from unfused_ray import storage
from unfused_ray.config import BatchConfig, CropConfig, PretrainConfig
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.data.stream.plan import Pass, Planner, Segment
from unfused_ray.data.stream.read import Block, BlockReader
from unfused_ray.runs.checkpoints import CheckpointStore, Position
from unfused_ray.runs.run import Run

EPOCHS = 3


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory, tracking_uri: str) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert train(tiny(source, folder, tracking_uri, epochs=EPOCHS)).state == "finished"
    return folder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def begun(job: PretrainConfig) -> Position:
    """Train the first epoch; return the position of the newest checkpoint."""
    assert train(job.replace(stop_after=1)).state == "stopped"
    return newest(job)


def newest(job: PretrainConfig) -> Position:
    found = CheckpointStore(job.output).newest()
    assert found is not None
    return found.position


def fill(disk: Path, leave: int) -> Path:
    """Write a file that leaves ``leave`` free bytes on the file system; return its path."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        file.write(bytes(shutil.disk_usage(disk).free - leave))
    return filler


# With 64 KB left the checkpoint does not fit; with 0 not even the status that reports it.
@pytest.mark.parametrize("leave", [64 << 10, 0])
def test_a_full_disk_ends_the_run_and_leaves_the_checkpoint_before(
    disk: Path, source: Path, undisturbed: Path, tracking_uri: str, leave: int
) -> None:
    job = tiny(source, disk / "run", tracking_uri, epochs=EPOCHS, checkpoint__keep=1)
    begun(job)
    store = CheckpointStore(job.output)
    good = store.committed()
    filler = fill(disk, leave)
    run = Run(job.output)
    if leave:
        with pytest.raises(OSError, match=rf"cannot write {disk}/run/\S+: .*No space left on device"):
            train(job)
        status = run.status()
        assert status is not None and status.state == "failed"
        assert "No space left on device" in status.message
    else:
        with pytest.raises(OSError, match="No space left on device"):
            train(job)
    assert newest(job) == Position(1, 0)
    assert set(good) <= set(store.committed())
    filler.unlink()
    assert train(job).state == "finished"
    assert_equal_runs(disk / "run", undisturbed)


def test_a_read_only_folder_is_named_and_left_as_it_is(disk: Path, source: Path, tracking_uri: str) -> None:
    job = tiny(source, disk / "run", tracking_uri, epochs=EPOCHS)
    begun(job)
    before = {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(OSError, match=rf"cannot write {disk}/run/lease\.json: .*Read-only file system"):
        train(job)
    assert {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()} == before
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert train(job).state == "finished"


def test_a_checkpoint_with_a_flipped_bit_is_named_and_the_run_goes_on_from_the_one_before(
    source: Path, undisturbed: Path, tmp_path: Path, tracking_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    job = tiny(source, tmp_path / "run", tracking_uri, epochs=EPOCHS)
    begun(job)
    train(job.replace(stop_after=2))
    folder = Path(job.output, "checkpoints", newest(job).folder)
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert newest(job) == Position(1, 0)
    assert train(job).state == "finished"
    assert f"checkpoint {folder} is not used: model.safetensors is damaged" in caplog.text
    assert_equal_runs(tmp_path / "run", undisturbed)


def blocks(source: Path) -> list[Block]:
    """Read every block of an epoch."""
    planner = Planner(ClipIndex.load((str(source),), None), 1, BatchConfig(block=8, blocks_per_step=1))
    reader = BlockReader(1, 8, CropConfig(seconds=0.31), 4_960)
    one = Pass("train", 0)
    segment = Segment(one, planner.num_steps("train"))
    return [block for task in planner.read_tasks(segment) for block in reader.read(one, task)]


def test_no_flipped_bit_of_a_shard_goes_unseen(tmp_path: Path) -> None:
    write_source(tmp_path, [[8, 8]])
    shard = tmp_path / "00000.parquet"
    whole, expected = shard.read_bytes(), blocks(tmp_path)
    rng = random.Random(7)
    counted = 0
    for _ in range(60):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        shard.write_bytes(data)
        for found, wanted in zip(blocks(tmp_path), expected, strict=True):
            used = found.weights == 1
            np.testing.assert_array_equal(found.waves[used], wanted.waves[used])
            assert not found.waves[~used].any()
            counted += int((~used).sum())
    assert counted > 20  # the other bits are in bytes that an epoch does not read


def test_faults_that_pass_are_not_noticed(
    store: FaultyStore, source: Path, undisturbed: Path, tmp_path: Path, tracking_uri: str
) -> None:
    """Every fifteenth request fails; Arrow sends it again."""
    requests = itertools.count(1)

    def judge(head: bytes) -> Fault:
        if next(requests) % 15:
            return ""
        return "cut" if b"partNumber" in head else "error"

    store.judge = judge
    output = f"s3://bucket/{tmp_path.name}{store.options}"
    job = tiny(source, tmp_path, tracking_uri, epochs=EPOCHS).replace(output=output)
    assert train(job).state == "finished"
    assert store.num_faults > 5
    store.judge = lambda head: ""
    fetch(output, tmp_path / "fetched")
    assert_equal_runs(tmp_path / "fetched", undisturbed)


# Arrow sends a request 31 times: each try takes a second if it is cut off, three if it is never answered.
@pytest.mark.parametrize("fault", ["error", *(pytest.param(one, marks=pytest.mark.slow) for one in ("cut", "stall"))])
def test_a_store_that_fails_ends_the_run_and_leaves_the_checkpoint_before(
    store: FaultyStore, source: Path, undisturbed: Path, tmp_path: Path, tracking_uri: str, fault: Fault
) -> None:
    output = f"s3://bucket/{tmp_path.name}{store.options}"
    job = tiny(source, tmp_path, tracking_uri, epochs=EPOCHS).replace(output=output)
    begun(job)
    store.judge = lambda head: fault if b"model.safetensors" in head and b"partNumber" in head else ""
    with pytest.raises(OSError, match=r"cannot write s3://bucket/\S+model\.safetensors\S*: .*AWS Error"):
        train(job)
    assert store.num_faults > 1  # Arrow tried again
    store.judge = lambda head: ""
    assert newest(job) == Position(1, 0)
    status = Run(job.output).status()
    assert status is not None and "model.safetensors" in status.message
    assert train(job).state == "finished"
    fetch(output, tmp_path / "fetched")
    assert_equal_runs(tmp_path / "fetched", undisturbed)


def fetch(uri: str, folder: Path) -> None:
    """Copy a run from an object store to a local folder, where its export can then be read."""
    for file in storage.list_files(uri, recursive=True):
        storage.write_bytes(storage.join(str(folder), storage.relative(file, uri)), storage.read_bytes(file))
