"""Batches are the same for any number of workers, after any restart, and if a data task or a shard is lost."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st
from support.processes import wait_for
from support.sources import tone, write_source

from unfused_ray.audio import randomness
from unfused_ray.config import BatchConfig, CropConfig
from unfused_ray.data.shards.format import Manifest, Shard
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.data.stream import prefetch
from unfused_ray.data.stream.plan import (
    MAX_TASKS_OF_SHORT_PASSES,
    UNREAD,
    Execution,
    Pass,
    Planner,
    ReadTask,
    Segment,
    row_order,
)
from unfused_ray.data.stream.prefetch import LocalSource, Prefetcher
from unfused_ray.data.stream.ray_source import RaySource, execution_options, from_table, make_dataset, to_table
from unfused_ray.data.stream.read import Block, BlockReader

BATCH = BatchConfig(block=8, blocks_per_step=4)
SAMPLES = 8_000
SIZES = [[13, 12], [25], [9, 9, 7]]  # 75 clips: two training steps of 32 clips


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ClipIndex:
    return ClipIndex([write_source(tmp_path_factory.mktemp("tones"), SIZES)])


def reader(num_crops: int = 1) -> BlockReader:
    return BlockReader(seed=5, block_size=BATCH.block, crop=CropConfig(num_crops=num_crops), crop_samples=SAMPLES)


def manifest(sizes: list[list[int]]) -> Manifest:
    shards = tuple(Shard(f"{i}.parquet", "", tuple(groups), 1.0, 1, "0", {}) for i, groups in enumerate(sizes))
    return Manifest("/nowhere", shards, {}, {})


def planned_ids(planner: Planner, pass_: Pass, blocks_per_task: int = 3) -> list[int]:
    """Return the clip_ids of a pass in order, -1 for padding."""
    ids: list[int] = []
    num_steps = planner.num_steps(pass_.kind) - pass_.first_step
    for task in planner.read_tasks(Segment(pass_, num_steps), blocks_per_task):
        for part in task.slices:
            rows = row_order(planner.seed, pass_.epoch, part.unit)[part.start : part.stop]
            ids += [-1 if part.padding else part.unit.first_clip_id + int(row) for row in rows]
    return ids


row_groups = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=4), min_size=1, max_size=5)


@given(row_groups, st.integers(2, 5), st.integers(1, 3), st.integers(0, 3), st.integers(1, 7), st.data())
def test_plan_covers_the_clips_and_a_restart_is_the_tail(
    sizes: list[list[int]], block: int, per_step: int, epoch: int, per_task: int, data: st.DataObject
) -> None:
    batch = BatchConfig(block=block, blocks_per_step=per_step)
    index = ClipIndex([manifest(sizes)])
    if index.num_clips < batch.clips_per_step:
        with pytest.raises(ValueError, match=f"hold {index.num_clips} clips"):
            Planner(index, 3, batch)
        return
    planner = Planner(index, 3, batch)
    train = planned_ids(planner, Pass("train", epoch), per_task)
    assert len(train) == planner.num_steps("train") * batch.clips_per_step > index.num_clips - batch.clips_per_step
    assert len(set(train)) == len(train) and set(train) <= set(range(index.num_clips))
    embed = planned_ids(planner, Pass("embed", epoch), per_task)
    assert sorted(i for i in embed if i >= 0) == list(range(index.num_clips))
    assert len(embed) % batch.clips_per_step == 0
    step = data.draw(st.integers(0, planner.num_steps("train")))
    assert planned_ids(planner, Pass("train", epoch, step), per_task) == train[step * batch.clips_per_step :]


@given(st.integers(1, 6), st.integers(1, 99), st.lists(st.booleans(), min_size=1, max_size=12), st.data())
def test_executions_are_short_passes_together_or_parts_of_long_ones(
    per_step: int, max_tasks: int, trained: list[bool], data: st.DataObject
) -> None:
    planner = Planner(ClipIndex([manifest([[200]])]), 3, BatchConfig(block=2, blocks_per_step=per_step))
    passes = [Pass("train" if train else "embed", epoch) for epoch, train in enumerate(trained)]
    passes[0] = replace(passes[0], first_step=data.draw(st.integers(0, planner.num_steps(passes[0].kind) - 1)))
    executions = list(planner.executions(passes, max_tasks))
    steps = [
        replace(part.pass_, first_step=part.pass_.first_step + step)
        for execution in executions
        for part in execution
        for step in range(part.num_steps)
    ]
    assert steps == [
        replace(pass_, first_step=step)
        for pass_ in passes
        for step in range(pass_.first_step, planner.num_steps(pass_.kind))
    ]

    def num_tasks(*segments: Segment) -> int:
        return sum(len(planner.read_tasks(segment)) for segment in segments)

    for execution, following in itertools.pairwise([*executions, ()]):
        if len(execution) == 1:
            assert num_tasks(*execution) <= max_tasks or execution[0].num_steps == 1
        else:
            assert num_tasks(*execution) <= min(max_tasks, MAX_TASKS_OF_SHORT_PASSES)
            assert all(part.pass_ in passes for part in execution)
        if following and following[0].pass_ in passes and execution[-1].pass_ in passes:
            assert num_tasks(*execution, following[0]) > min(max_tasks, MAX_TASKS_OF_SHORT_PASSES)


def test_epochs_differ(index: ClipIndex) -> None:
    planner = Planner(index, 3, BATCH)
    assert planned_ids(planner, Pass("train", 0)) != planned_ids(planner, Pass("train", 1))


@pytest.mark.parametrize("num_crops", [1, 2])
def test_crops_are_those_of_a_naive_reader(index: ClipIndex, num_crops: int) -> None:
    planner = Planner(index, 5, BATCH)
    blocks = list(LocalSource(planner, reader(num_crops)).blocks(Pass("train", 2)))
    assert [block.index for block in blocks] == list(range(8))
    for block in blocks:
        assert block.waves.shape == (8, num_crops, SAMPLES)
        for clip_id, crops in zip(block.clip_ids, block.waves, strict=True):
            wave = tone(int(clip_id), (4_000, 9_000, 20_000)[clip_id % 3])
            for number, crop in enumerate(crops):
                if len(wave) <= SAMPLES:
                    expected = np.tile(wave, SAMPLES // len(wave) + 1)[:SAMPLES]
                else:
                    where = randomness.uniform(5, f"crop {number}", 2, np.array([clip_id]))[0]
                    start = int(where * (len(wave) - SAMPLES + 1))
                    expected = wave[start : start + SAMPLES]
                np.testing.assert_array_equal(crop, expected)


def test_table_and_back(index: ClipIndex) -> None:
    block = next(LocalSource(Planner(index, 5, BATCH), reader(2)).blocks(Pass("train", 0)))
    train = Pass("train", 0)
    assert_same_blocks([from_table(to_table(block, train), train, SAMPLES)], [block])
    with pytest.raises(RuntimeError, match="another pass"):
        from_table(to_table(block, train), Pass("embed", 0), SAMPLES)
    with pytest.raises(RuntimeError, match="mixed blocks"):
        other = Block(block.index + 1, block.clip_ids, block.waves, block.weights)
        from_table(pa.concat_tables([to_table(block, train), to_table(other, train)]), train, SAMPLES)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def rename(path: Path) -> None:
    """Change the name of a column, as a flipped bit may."""
    path.write_bytes(path.read_bytes().replace(b"audio", b"audin"))


def retype(path: Path) -> None:
    table = pq.read_table(path)
    number = table.schema.names.index("num_samples")
    pq.write_table(table.set_column(number, "num_samples", table["num_samples"].cast(pa.string())), path)


def lose_rows(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(1), path)


@pytest.mark.parametrize("damage", [cut, rename, retype, lose_rows])
def test_a_damaged_shard_is_silence_of_weight_0(
    damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = ClipIndex([write_source(tmp_path, SIZES)])
    planner = Planner(index, 5, BATCH)
    whole = list(LocalSource(planner, reader()).blocks(Pass("train", 0)))
    damage(tmp_path / "00001.parquet")
    damaged = list(LocalSource(planner, reader()).blocks(Pass("train", 0)))
    assert len(damaged) == len(whole)
    assert "00001.parquet" in caplog.text
    for before, after in zip(whole, damaged, strict=True):
        lost = (before.clip_ids >= 25) & (before.clip_ids < 50)
        np.testing.assert_array_equal(after.clip_ids, before.clip_ids)
        np.testing.assert_array_equal(after.weights, np.where(lost, 0, 1))
        np.testing.assert_array_equal(after.waves, np.where(lost[:, None, None], 0, before.waves))


def test_a_flipped_bit_in_a_clip_is_silence_of_weight_0(tmp_path: Path) -> None:
    index = ClipIndex([write_source(tmp_path, [[40]])])
    path = tmp_path / "00000.parquet"
    data = bytearray(path.read_bytes())
    data[data.index(b"fLaC") + 2_000] ^= 0x10
    path.write_bytes(bytes(data))
    blocks = list(LocalSource(Planner(index, 5, BATCH), reader()).blocks(Pass("embed", 0)))
    lost = [int(i) for block in blocks for i in block.clip_ids[block.weights == 0]]
    assert set(lost) <= {0, -1} and 0 in lost


def test_a_missing_shard_is_an_error_not_silence(tmp_path: Path) -> None:
    index = ClipIndex([write_source(tmp_path, [[40]])])
    (tmp_path / "00000.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"00000\.parquet"):
        list(LocalSource(Planner(index, 5, BATCH), reader()).blocks(Pass("train", 0)))


def test_prefetcher_hands_over_passes_in_order_and_raises_in_the_consumer(index: ClipIndex) -> None:
    source = LocalSource(Planner(index, 5, BATCH), reader())
    passes = [Pass("embed", 0), Pass("train", 0)]
    prefetcher = Prefetcher(source, passes, depth=2)
    for pass_ in passes:
        assert_same_blocks(list(prefetcher.blocks(pass_)), list(source.blocks(pass_)))

    class Broken:
        def stream(self, passes: Sequence[Pass]) -> Any:
            raise OSError("no answer")

    with pytest.raises(OSError, match="no answer"):
        next(Prefetcher(Broken(), passes, depth=2).blocks(passes[0]))


def test_several_threads_read_the_same_blocks_in_the_same_order(index: ClipIndex) -> None:
    planner = Planner(index, 5, BATCH)
    threads: set[str] = set()

    class Noted(BlockReader):
        def read(self, pass_: Pass, task: ReadTask) -> Iterator[Block]:
            threads.add(threading.current_thread().name)
            return super().read(pass_, task)

    noted = Noted(**asdict(reader(2)) | {"crop": CropConfig(num_crops=2)})
    for pass_ in (Pass("embed", 0), Pass("train", 1), Pass("train", 1, 1)):
        alone = list(LocalSource(planner, reader(2)).blocks(pass_))
        assert_same_blocks(list(LocalSource(planner, noted, num_threads=3).blocks(pass_)), alone)
    assert threads and all(name.startswith("decode") for name in threads)


def test_several_threads_raise_what_one_would_and_end_with_their_consumer(tmp_path: Path) -> None:
    index = ClipIndex([write_source(tmp_path, [[40, 40]])])
    source = LocalSource(Planner(index, 5, BATCH), reader(), num_threads=2)
    blocks = source.blocks(Pass("train", 0))
    next(blocks)
    blocks.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
    (tmp_path / "00000.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"00000\.parquet"):
        list(source.blocks(Pass("train", 0)))


@pytest.mark.parametrize(("seconds", "ready"), [(0.0, 2), (10.0, 20), (1e9, prefetch._MOST_BLOCKS)])
def test_blocks_are_held_ready_for_some_seconds_of_training(
    seconds: float, ready: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fake clock lets the training take half a second a block."""
    clock, made = [0.0], list[int]()
    monkeypatch.setattr(prefetch, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    class Endless:
        def stream(self, passes: Sequence[Pass]) -> Iterator[tuple[Pass, Block]]:
            for index in itertools.count():
                yield passes[0], Block(index, np.arange(1), np.zeros((1, 1, 1), np.int16), np.ones(1))

    def prepare(block: Block) -> Block:
        made.append(block.index)
        return replace(block, weights=2 * block.weights)

    prefetcher = Prefetcher(Endless(), [Pass("train", 0)], 2, seconds, prepare)
    blocks, taken = prefetcher.blocks(Pass("train", 0)), prefetch._FIRST_BLOCKS + 1
    for index in range(taken):
        block = next(blocks)
        assert (block.index, block.weights) == (index, 2.0)
        clock[0] += 0.5
    wait_for(lambda: len(made) == taken + ready + 1)  # one more waits for room
    threading.Event().wait(0.05)
    assert len(made) == taken + ready + 1
    prefetcher.close()


# ------------------------------------------------------------------------------------------------------- Ray Data


@ray.remote(num_cpus=0)
class PositionActor:
    def __init__(self) -> None:
        self.executions = [UNREAD]

    def set(self, execution: Execution) -> None:
        self.executions.append(execution)

    def get(self) -> Execution:
        return self.executions[-1]

    def num_executions(self) -> int:
        return len(self.executions) - 1


@dataclass(frozen=True)
class Position:
    actor: Any

    def __call__(self) -> Execution:
        return ray.get(self.actor.get.remote())


@ray.remote(num_cpus=0)
def consume(
    iterator: Any, planner: Planner, rank: int, world: int, actor: Any, passes: list[Pass], max_tasks: int
) -> list[list[Block]]:
    def set_execution(execution: Execution) -> None:
        ray.get(actor.set.remote(execution))

    source = RaySource(iterator, planner, SAMPLES, rank, world, set_execution, max_tasks)
    found: list[list[Block]] = [[]]
    for pass_, block in source.stream(passes):
        assert pass_ == passes[len(found) - 1]
        if block is None:
            found.append([])
        else:
            found[-1].append(block)
    assert found.pop() == []  # every pass was ended, the last one too
    return found


def stream_through_ray(
    planner: Planner,
    block_reader: BlockReader,
    world: int,
    passes: list[Pass],
    max_tasks: int = 256,
    num_executions: int = 1,
) -> list[list[Block]]:
    """Stream passes to ``world`` consumers in so many executions; return the blocks of each pass in their global
    order."""
    actor = PositionActor.remote()
    dataset = make_dataset(planner, block_reader, Position(actor))
    dataset.context.execution_options = execution_options()
    splits = dataset.streaming_split(world, equal=True)
    ranks = ray.get(
        [consume.remote(split, planner, rank, world, actor, passes, max_tasks) for rank, split in enumerate(splits)]
    )
    assert ray.get(actor.num_executions.remote()) == num_executions
    return [sorted((b for rank in ranks for b in rank[i]), key=lambda b: b.index) for i in range(len(passes))]


def assert_same_blocks(one: list[Block], other: list[Block]) -> None:
    assert [block.index for block in one] == [block.index for block in other]
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.clip_ids, b.clip_ids)
        np.testing.assert_array_equal(a.weights, b.weights)
        np.testing.assert_array_equal(a.waves, b.waves)


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize(("max_tasks", "num_executions"), [(1, 8), (2, 5), (256, 1)])
def test_ray_gives_the_same_global_batches_to_any_number_of_consumers(
    ray_session: None, index: ClipIndex, world: int, max_tasks: int, num_executions: int
) -> None:
    """A step is one read task; the passes have three, two, two and one of them."""
    planner = Planner(index, 5, BATCH)
    passes = [Pass("embed", 0), Pass("train", 0), Pass("train", 1), Pass("train", 2, 1)]
    local = LocalSource(planner, reader(2))
    streamed = stream_through_ray(planner, reader(2), world, passes, max_tasks, num_executions)
    for found, pass_ in zip(streamed, passes, strict=True):
        assert_same_blocks(found, list(local.blocks(pass_)))


def test_ray_does_not_cut_the_blocks_of_a_plan_of_many_tasks(ray_session: None, tmp_path: Path) -> None:
    """By default Ray Data cuts the blocks of a dataset with fewer than 200 read tasks into more blocks."""
    index = ClipIndex([write_source(tmp_path, [[785, 785]], lengths=(800,))])
    planner = Planner(index, 5, BATCH)
    found = stream_through_ray(planner, reader(), 2, [Pass("embed", 0), Pass("train", 0)], num_executions=2)[1]
    assert_same_blocks(found, list(LocalSource(planner, reader()).blocks(Pass("train", 0))))


@pytest.mark.parametrize(
    ("delivered", "words"),
    [
        ([0, 1, 2, 3, 4, 5, 6], "received nothing of .* where the plan has block 7"),
        ([0, 2, 1, 3, 4, 5, 6, 7], "received block 2 of .* where the plan has block 1"),
        ([0, 1, 2, 3, 4, 5, 6, 7, 7], "received more blocks than the plan has"),
    ],
)
def test_other_blocks_than_the_plan_has_are_an_error_before_their_pass_ends(
    index: ClipIndex, delivered: list[int], words: str
) -> None:
    """After the end of the last pass, nobody would hear of it."""
    planner, pass_ = Planner(index, 5, BATCH), Pass("train", 0)
    planned = list(LocalSource(planner, reader()).blocks(pass_))
    iterator: Any = SimpleNamespace(iter_batches=lambda **options: [to_table(planned[i], pass_) for i in delivered])
    stream = RaySource(iterator, planner, SAMPLES, 0, 1, lambda execution: None).stream([pass_])
    found: list[Block | None] = []
    with pytest.raises(RuntimeError, match=words):
        found.extend(block for _, block in stream)
    assert len(planned) == 8 and None not in found


@dataclass(frozen=True)
class DyingReader(BlockReader):
    """A reader that kills its own process the first two times it is used."""

    folder: str = ""

    def read(self, pass_: Pass, task: Any) -> Any:
        blocks = super().read(pass_, task)
        yield next(blocks)
        deaths = len(list(Path(self.folder).iterdir()))
        if deaths < 2:
            (Path(self.folder) / str(deaths)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield from blocks


def test_a_data_task_killed_twice_changes_nothing(ray_session: None, index: ClipIndex, tmp_path: Path) -> None:
    planner = Planner(index, 5, BATCH)
    dying = DyingReader(5, BATCH.block, CropConfig(), SAMPLES, str(tmp_path))
    found = stream_through_ray(planner, dying, 2, [Pass("train", 3)])[0]
    assert len(list(tmp_path.iterdir())) == 2
    assert_same_blocks(found, list(LocalSource(planner, reader()).blocks(Pass("train", 3))))
