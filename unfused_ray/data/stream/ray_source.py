"""Streams blocks to a worker group with Ray Data: the only module of this room that imports Ray.

Ray Data asks a :class:`Datasource` for its read tasks at every execution, after all ranks have arrived. The Datasource
here then asks the run which segments of passes it wants (``execution``), and plans exactly those. No order is saved, no
batch is repeated after a restart, and the number of workers changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import ray.data
from ray.data import DataContext, ExecutionOptions, datasource
from ray.data.block import BlockMetadata

from unfused_ray.data.stream.plan import MAX_TASKS_PER_EXECUTION, Execution, Pass, Planner, ReadTask, Segment
from unfused_ray.data.stream.read import Block, BlockReader


class PlannedClips(datasource.Datasource):
    """A Datasource that is planned at every execution.

    Args:
        planner: plans the passes.
        reader: reads the blocks of a task.
        execution: returns the segments that are wanted now; called once per execution.
    """

    def __init__(self, planner: Planner, reader: BlockReader, execution: Callable[[], Execution]) -> None:
        super().__init__()
        self.planner = planner
        self.reader = reader
        self.execution = execution

    def estimate_inmemory_data_size(self) -> int | None:
        """Return None: the size depends on the segments."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[datasource.ReadTask]:
        """Plan the segments that are wanted now. ``parallelism`` is ignored: the plan decides the size of a task."""
        return [
            datasource.ReadTask(
                _ReadBlocks(self.reader, segment.pass_, task),
                BlockMetadata(
                    num_rows=task.num_clips,
                    size_bytes=task.num_clips * row_bytes(self.reader),
                    input_files=None,
                    exec_stats=None,
                ),
            )
            for segment in self.execution()
            for task in self.planner.read_tasks(segment)
        ]


@dataclass(frozen=True)
class _ReadBlocks:
    reader: BlockReader
    pass_: Pass
    task: ReadTask

    def __call__(self) -> Iterator[pa.Table]:
        for block in self.reader.read(self.pass_, self.task):
            yield to_table(block, self.pass_)


def row_bytes(reader: BlockReader) -> int:
    """Return the number of bytes per clip in a block's table."""
    return 2 * reader.crop.num_crops * reader.crop_samples + 8 + 4 + 4 + 4


def to_table(block: Block, pass_: Pass) -> pa.Table:
    """Make an Arrow table of a block. Waves are fixed-size binaries, so that no value is copied or boxed."""
    waves = np.ascontiguousarray(block.waves).reshape(len(block.clip_ids), -1)
    binary = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(waves.shape[1] * 2), len(waves), [None, pa.py_buffer(waves.data)]
    )
    return pa.table(
        {
            "pass": pa.array(np.full(len(waves), pass_.number, np.int32)),
            "index": pa.array(np.full(len(waves), block.index, np.int32)),
            "clip_id": pa.array(block.clip_ids),
            "weight": pa.array(block.weights),
            "waves": binary,
        }
    )


def from_table(table: pa.Table, pass_: Pass, crop_samples: int) -> Block:
    """Make a block from a table of :func:`to_table`.

    Raises:
        RuntimeError: the rows are not one whole block of this pass.
    """
    table = table.combine_chunks()
    index, passes = table["index"].to_numpy(), table["pass"].to_numpy()
    if index.min() != index.max():
        raise RuntimeError(f"Ray Data mixed blocks {index.min()} to {index.max()} in one batch")
    if (passes != pass_.number).any():
        raise RuntimeError(f"Ray Data delivered a block of another pass than {pass_}")
    waves = table["waves"].chunk(0)
    width = waves.type.byte_width // 2
    flat = np.frombuffer(waves.buffers()[1], np.int16)[waves.offset * width : (waves.offset + len(waves)) * width]
    return Block(
        int(index[0]),
        table["clip_id"].to_numpy(),
        flat.reshape(len(waves), width // crop_samples, crop_samples),
        table["weight"].to_numpy(),
    )


def make_dataset(planner: Planner, reader: BlockReader, execution: Callable[[], Execution]) -> ray.data.Dataset:
    """Make the Ray Dataset of a run, for ``TorchTrainer(datasets=…)`` together with :func:`execution_options`."""
    context = DataContext.get_current().copy()
    # One byte less than a block, so that Ray Data closes an output after every table that the reader yields.
    context.target_max_block_size = planner.batch.block * row_bytes(reader) - 1
    context.enable_progress_bars = False
    # A worker that waits for a long clustering keeps its iterator open, which is not a hang.
    context.execution_no_progress_timeout_s = -1
    with DataContext.current(context):
        # Ask for one block: with the default of 200, Ray Data would cut the blocks of short plans into pieces.
        return ray.data.read_datasource(PlannedClips(planner, reader, execution), override_num_blocks=1)


def execution_options() -> ExecutionOptions:
    """Return the options under which the ranks take turns at the blocks, in the order of the plan."""
    return ExecutionOptions(preserve_order=True)


class RaySource:
    """One rank's share of the Ray Dataset: block j goes to rank j mod world.

    Args:
        iterator: the rank's split of the dataset.
        planner: plans the passes, as the dataset does.
        crop_samples: samples of a crop.
        rank, world: rank of the worker, and size of its group.
        set_execution: sets the segments that the dataset plans next.
        max_tasks: largest number of read tasks per execution; the same on all ranks.
    """

    def __init__(
        self,
        iterator: ray.data.DataIterator,
        planner: Planner,
        crop_samples: int,
        rank: int,
        world: int,
        set_execution: Callable[[Execution], None],
        max_tasks: int = MAX_TASKS_PER_EXECUTION,
    ) -> None:
        self.iterator = iterator
        self.planner = planner
        self.crop_samples = crop_samples
        self.rank = rank
        self.world = world
        self.set_execution = set_execution
        self.max_tasks = max_tasks

    def stream(self, passes: Sequence[Pass]) -> Iterator[tuple[Pass, Block | None]]:
        """Yield this rank's blocks of the passes, each from its first step on, and (pass, None) at the end of each.

        Raises:
            RuntimeError: Ray Data delivered another block than the plan's next one.
        """
        wanted = deque(passes)
        for execution in self.planner.executions(passes, self.max_tasks):
            if self.rank == 0:
                # The other ranks wait inside Ray Data until this one has arrived, so they see the new one.
                self.set_execution(execution)
            tables = iter(
                self.iterator.iter_batches(
                    batch_size=self.planner.batch.block, batch_format="pyarrow", prefetch_batches=2
                )
            )
            for segment in execution:
                for block in self._segment(segment, tables):
                    yield wanted[0], block
                # Before the pass ends, because a worker ends with its last pass, perhaps while it waits for Ray Data.
                if segment is execution[-1] and next(tables, None) is not None:
                    raise RuntimeError(f"rank {self.rank} received more blocks than the plan has up to {segment}")
                if segment.pass_.first_step + segment.num_steps == self.planner.num_steps(segment.pass_.kind):
                    yield wanted.popleft(), None

    def _segment(self, segment: Segment, tables: Iterator[pa.Table]) -> Iterator[Block]:
        """Yield this rank's blocks of a segment."""
        first = segment.pass_.first_step * self.planner.batch.blocks_per_step
        last = first + segment.num_steps * self.planner.batch.blocks_per_step
        for index in range(first + self.rank, last, self.world):
            table = next(tables, None)
            block = None if table is None else from_table(table, segment.pass_, self.crop_samples)
            if block is None or block.index != index:
                received = "nothing" if block is None else f"block {block.index}"
                raise RuntimeError(
                    f"rank {self.rank} received {received} of {segment} where the plan has block {index}"
                )
            yield block
