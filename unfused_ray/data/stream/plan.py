"""Decides which clips make which batch: a pure function of (seed, epoch), the same for any number of workers.

The units (row groups) of a run are put in a random order, and the rows of each unit in a random order of their own;
then all rows are laid end to end. The line is cut into **blocks** of exactly b clips; G blocks are a global batch.
Block j of an epoch belongs to step j // G, and to rank j % world. No order is ever saved: it follows from (seed, epoch,
step).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from unfused_ray.audio import randomness
from unfused_ray.config import BatchConfig
from unfused_ray.data.shards.index import ClipIndex, Unit

BLOCKS_PER_TASK = 4
# Planning a Ray read task costs about 1 ms (measured), so a long pass takes several executions.
MAX_TASKS_PER_EXECUTION = 256
# An execution costs 0.7 s of CPU time whatever its size (measured), so short passes share one, up to this number of
# tasks: Ray Data may read all of them ahead, half a gigabyte for blocks of 64 clips with one crop of 0.95 s.
MAX_TASKS_OF_SHORT_PASSES = 64


@dataclass(frozen=True)
class Pass:
    """One way through the data, or the rest of one.

    A ``train`` pass covers N - N mod (G·b) clips at random crops. An ``embed`` pass covers every clip at centred crops;
    the first clips, with clip_id -1, fill up its last global batch.
    """

    kind: Literal["train", "embed"]
    epoch: int
    first_step: int = 0

    @property
    def number(self) -> int:
        """Number of the pass within its run, whichever step it starts from."""
        return 2 * self.epoch + (self.kind == "train")


@dataclass(frozen=True)
class Segment:
    """Consecutive steps of a pass, the first of which is the pass's ``first_step``."""

    pass_: Pass
    num_steps: int


Execution = tuple[Segment, ...]
"""What one execution of Ray Data reads: segments of consecutive passes."""

# Ray Data plans a Dataset once when it is made, before any rank has asked for a pass; this plan is never read.
UNREAD: Execution = (Segment(Pass("embed", 0), 1),)


@dataclass(frozen=True)
class UnitSlice:
    """Rows ``start`` to ``stop`` of a unit, counted in the unit's random order."""

    unit: Unit
    start: int
    stop: int
    padding: bool = False
    """True if the rows only fill up the last global batch of an ``embed`` pass."""


@dataclass(frozen=True)
class ReadTask:
    """Consecutive blocks that one read operation makes."""

    first_block: int
    slices: tuple[UnitSlice, ...]

    @property
    def num_clips(self) -> int:
        """Clips of all blocks of the task."""
        return sum(part.stop - part.start for part in self.slices)


class Planner:
    """Plans passes over a :class:`ClipIndex`. Memory and time grow with the units, not with the clips.

    Raises:
        ValueError: the data hold fewer clips than a global batch.
    """

    def __init__(self, index: ClipIndex, seed: int, batch: BatchConfig) -> None:
        if index.num_clips < batch.clips_per_step:
            raise ValueError(
                f"the data hold {index.num_clips} clips, a global batch is batch.block={batch.block} × "
                f"batch.blocks_per_step={batch.blocks_per_step} = {batch.clips_per_step}: lower one of them"
            )
        self.index = index
        self.seed = seed
        self.batch = batch

    def num_steps(self, kind: Literal["train", "embed"]) -> int:
        """Return the number of global batches of a whole pass."""
        clips, per_step = self.index.num_clips, self.batch.clips_per_step
        return clips // per_step if kind == "train" else -(-clips // per_step)

    def executions(self, passes: Iterable[Pass], max_tasks: int = MAX_TASKS_PER_EXECUTION) -> Iterator[Execution]:
        """Divide passes into executions, in order: several whole passes while they are short, or a part of a longer one
        of at most ``max_tasks`` read tasks, but at least a step."""
        shared: list[Segment] = []
        shared_tasks = 0
        for pass_ in passes:
            whole = Segment(pass_, self.num_steps(pass_.kind) - pass_.first_step)
            tasks = self._num_tasks(whole.num_steps)
            if shared and shared_tasks + tasks > min(max_tasks, MAX_TASKS_OF_SHORT_PASSES):
                yield tuple(shared)
                shared, shared_tasks = [], 0
            if tasks <= max_tasks:
                shared.append(whole)
                shared_tasks += tasks
                continue
            longest = max(1, max_tasks * BLOCKS_PER_TASK // self.batch.blocks_per_step)
            last = self.num_steps(pass_.kind)
            for step in range(pass_.first_step, last, longest):
                yield (Segment(Pass(pass_.kind, pass_.epoch, step), min(longest, last - step)),)
        if shared:
            yield tuple(shared)

    def _num_tasks(self, num_steps: int) -> int:
        """Return the number of read tasks of a segment."""
        return -(-num_steps * self.batch.blocks_per_step // BLOCKS_PER_TASK)

    def read_tasks(self, segment: Segment, blocks_per_task: int = BLOCKS_PER_TASK) -> list[ReadTask]:
        """Cut the steps of a segment into read tasks of consecutive blocks."""
        pass_ = segment.pass_
        units, size, num_clips = self.index.units, self.batch.block, self.index.num_clips
        order = randomness.generator(self.seed, "units", pass_.epoch).permutation(len(units))
        ends = np.cumsum(units.num_clips[order], dtype=np.int64)
        first_block = pass_.first_step * self.batch.blocks_per_step
        last_block = first_block + segment.num_steps * self.batch.blocks_per_step
        tasks = []
        for block in range(first_block, last_block, blocks_per_task):
            slices = []
            position, stop = block * size, min(block + blocks_per_task, last_block) * size
            while position < stop:
                lap, offset = divmod(position, num_clips)
                place = int(np.searchsorted(ends, offset, side="right"))
                unit = units[order[place]]
                start = offset - (int(ends[place]) - unit.num_clips)
                count = min(unit.num_clips - start, stop - position)
                slices.append(UnitSlice(unit, start, start + count, padding=lap > 0))
                position += count
            tasks.append(ReadTask(block, tuple(slices)))
        return tasks


def row_order(seed: int, epoch: int, unit: Unit) -> np.ndarray:
    """Return the random order of a unit's rows in an epoch: int64, ``(num_clips,)``."""
    return randomness.generator(seed, "rows", epoch, unit.first_clip_id).permutation(unit.num_clips)
