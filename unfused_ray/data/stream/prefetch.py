"""Sources of a worker's blocks, and the thread that reads ahead of the training."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from unfused_ray.data.stream.plan import Pass, Planner
from unfused_ray.data.stream.read import Block, BlockReader


class BlockSource(Protocol):
    """Gives one worker its blocks of a pass."""

    def blocks(self, pass_: Pass) -> Iterator[Block]:
        """The worker's blocks, in the order of the plan."""
        ...


class LocalSource:
    """Reads all blocks in this process, without Ray."""

    def __init__(self, planner: Planner, reader: BlockReader) -> None:
        self.planner = planner
        self.reader = reader

    def blocks(self, pass_: Pass) -> Iterator[Block]:
        """Every block of the pass from its first step on."""
        for segment in self.planner.segments(pass_):
            for task in self.planner.read_tasks(segment):
                yield from self.reader.read(segment.pass_, task)


class Prefetcher:
    """Pulls blocks in a thread, ahead of the training and across the ends of passes.

    Args:
        source: gives the blocks.
        passes: every pass that will be asked for, in order.
        depth: blocks held ready.
    """

    def __init__(self, source: BlockSource, passes: Sequence[Pass], depth: int) -> None:
        self._source = source
        self.passes = tuple(passes)
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=depth)
        self._stopped = threading.Event()
        self.seconds_waited = 0.0
        """Time the consumer has waited for a block since the start."""
        self._thread = threading.Thread(target=self._pull, name="prefetch", daemon=True)
        self._thread.start()

    def blocks(self, pass_: Pass) -> Iterator[Block]:
        """The blocks of the next pass.

        Raises:
            ValueError: ``pass_`` is not the next of the announced passes.
            Exception: whatever the source raised, once.
        """
        while True:
            started = time.perf_counter()
            announced, item = self._queue.get()
            self.seconds_waited += time.perf_counter() - started
            if isinstance(item, BaseException):
                raise item
            if announced != pass_:
                raise ValueError(f"asked for {pass_}, but the next pass is {announced}")
            if item is None:
                return
            yield item

    def close(self) -> None:
        """Stop pulling."""
        self._stopped.set()

    def _put(self, item: tuple[Pass | None, Any]) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False

    def _pull(self) -> None:
        try:
            for pass_ in self.passes:
                for block in self._source.blocks(pass_):
                    if not self._put((pass_, block)):
                        return
                if not self._put((pass_, None)):
                    return
        except BaseException as error:  # noqa: BLE001 - raised again in the consumer's thread
            self._put((None, error))
