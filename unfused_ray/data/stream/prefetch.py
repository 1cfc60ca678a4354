"""Sources of a worker's blocks, and the thread that reads ahead of training."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from unfused_ray.data.stream.plan import Pass, Planner, ReadTask
from unfused_ray.data.stream.read import Block, BlockReader

_FIRST_BLOCKS = 8
"""Number of blocks after which the training time of a block is known well enough."""
_MOST_BLOCKS = 256
"""Largest number of blocks that are read ahead: 1 GB for blocks of 64 clips with two crops of 0.95 s."""


class BlockSource(Protocol):
    """Gives one worker its blocks."""

    def stream(self, passes: Sequence[Pass]) -> Iterator[tuple[Pass, Block | None]]:
        """Yield the worker's blocks of all passes, in the order of the plan, each with its pass; and (pass, None) at
        the end of each."""
        ...


class LocalSource:
    """Reads all blocks in this process, without Ray.

    Args:
        planner: plans the passes.
        reader: carries the plan out.
        num_threads: number of decoding threads, each of which takes one task at a time; decoding lets other threads
            run.
    """

    def __init__(self, planner: Planner, reader: BlockReader, num_threads: int = 1) -> None:
        self.planner = planner
        self.reader = reader
        self._num_threads = num_threads

    def stream(self, passes: Sequence[Pass]) -> Iterator[tuple[Pass, Block | None]]:
        """Yield every block of the passes, and (pass, None) at the end of each."""
        for pass_ in passes:
            for block in self.blocks(pass_):
                yield pass_, block
            yield pass_, None

    def blocks(self, pass_: Pass) -> Iterator[Block]:
        """Yield every block of the pass from its first step on."""
        tasks = (
            (segment.pass_, task)
            for execution in self.planner.executions([pass_])
            for segment in execution
            for task in self.planner.read_tasks(segment)
        )
        if self._num_threads == 1:  # yields the first block of a task before its others are read
            for task in tasks:
                yield from self.reader.read(*task)
            return
        pool = ThreadPoolExecutor(self._num_threads, thread_name_prefix="decode")
        started: deque[Future[list[Block]]] = deque()
        try:
            for task in tasks:
                started.append(pool.submit(self._read, *task))
                if len(started) > self._num_threads:
                    yield from started.popleft().result()
            while started:
                yield from started.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, pass_: Pass, task: ReadTask) -> list[Block]:
        return list(self.reader.read(pass_, task))


class Prefetcher:
    """Pulls blocks in a thread, ahead of training and across the ends of passes.

    Args:
        source: gives the blocks.
        passes: every pass that will be asked for, in order.
        depth: smallest number of blocks to hold ready.
        seconds: seconds of training for which blocks are held ready, once the training time of a block is known.
        prepare: called with each block in the thread.
    """

    def __init__(
        self,
        source: BlockSource,
        passes: Sequence[Pass],
        depth: int,
        seconds: float = 0.0,
        prepare: Callable[[Block], Block] = lambda block: block,
    ) -> None:
        self._source, self._prepare = source, prepare
        self.passes = tuple(passes)
        self._depth, self._seconds = depth, seconds
        self._queue: queue.Queue[Any] = queue.Queue()
        self._room = threading.Semaphore(depth)
        self._stopped = threading.Event()
        self._num_trained, self._seconds_trained = 0, 0.0
        self.seconds_waited = 0.0
        """Seconds that the consumer has waited for blocks since the start."""
        self._thread = threading.Thread(target=self._pull, name="prefetch", daemon=True)
        self._thread.start()

    def blocks(self, pass_: Pass) -> Iterator[Block]:
        """Yield the blocks of the next pass.

        Raises:
            ValueError: ``pass_`` is not the next of the announced passes.
            Exception: the exception that the source raised, once.
        """
        while True:
            started = time.perf_counter()
            announced, item = self._queue.get()
            self._room.release()
            given = time.perf_counter()
            self.seconds_waited += given - started
            if isinstance(item, BaseException):
                raise item
            if announced != pass_:
                raise ValueError(f"asked for {pass_}, but the next pass is {announced}")
            if item is None:
                return
            yield item
            self._note_training(time.perf_counter() - given)

    def close(self) -> None:
        """Stop pulling."""
        self._stopped.set()

    def _note_training(self, seconds: float) -> None:
        """Record the training time of a block; hold more blocks ready if they are used up faster than expected."""
        self._num_trained += 1
        self._seconds_trained += seconds
        if self._num_trained < _FIRST_BLOCKS:
            return
        wanted = math.ceil(self._seconds * self._num_trained / max(self._seconds_trained, 1e-6))
        if (more := min(wanted, _MOST_BLOCKS) - self._depth) > 0:
            self._depth += more
            self._room.release(more)

    def _put(self, item: tuple[Pass | None, Any]) -> bool:
        while not self._stopped.is_set():
            if self._room.acquire(timeout=0.2):
                self._queue.put(item)
                return True
        return False

    def _pull(self) -> None:
        try:
            for pass_, block in self._source.stream(self.passes):
                if not self._put((pass_, None if block is None else self._prepare(block))):
                    return
        except BaseException as error:  # noqa: BLE001 - raised again in the consumer's thread
            self._put((None, error))
