"""The driver during a training: it shows progress, passes on requests to stop, and leaves a status."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from unfused_ray import logs
from unfused_ray.lease import refuse_lost
from unfused_ray.progress import Progress
from unfused_ray.runs.run import Run
from unfused_ray.runs.status import Status
from unfused_ray.training.coordinator import CoordinatorClient, RunProgress
from unfused_ray.training.runtimes.runtime import StartedTraining

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""Seconds between two readings of the coordinator's progress."""
ABANDON_SECONDS = 30.0
"""Seconds that a run may take to end by itself once its lease is lost."""
LOG_SECONDS = 10.0
"""Seconds between two records of a run's metrics in the log file."""
_SHOWN_FIGURES = {
    "loss": "loss",
    "agreement": "agreement",
    "clips_per_second": "clips/s",
    "watched": "watched",
    "random": "random",
}
"""Names of metrics beside a bar."""


def supervise(
    run: Run,
    steps_per_epoch: int,
    last_epoch: int,
    training: StartedTraining,
    lost: threading.Event,
    on_epoch: Callable[[], object],
) -> Status:
    """Run a training in a thread; show its progress, pass signals on, and always leave a status.

    Args:
        run: folder of the run.
        steps_per_epoch: number of steps in an epoch.
        last_epoch: number of epochs after which the run should end.
        training: the training to run; its exceptions are raised here.
        lost: set once the run belongs to another process.
        on_epoch: called soon after the end of an epoch; the training does not wait for it, the display does.

    Raises:
        InUseError: the lease is lost. Nothing more is written to the run.
    """
    result: list[Status | BaseException] = []
    coordinator = training.coordinator

    def work() -> None:
        try:
            result.append(training.run())
        except BaseException as error:  # noqa: BLE001 - raised again below, in the main thread
            result.append(error)

    thread = threading.Thread(target=work, name="training", daemon=True)
    seen = [RunProgress()]
    with _signals() as stop, logs.fields(partial(_log_fields, run.record(), seen, steps_per_epoch)):
        thread.start()  # started first: an actor takes seconds until its first answer
        seen[0] = coordinator.progress()
        run.write_status(Status("running", *divmod(seen[0].step, steps_per_epoch)))
        told = _watch(thread, coordinator, stop, lost, seen, EpochEnds(steps_per_epoch, on_epoch))
    refuse_lost(run.uri, lost)
    outcome = result[0]
    reached = divmod(coordinator.progress().step, steps_per_epoch)
    if isinstance(outcome, BaseException):
        status = Status("failed", *reached, f"{type(outcome).__name__}: {outcome}")
    else:
        status = Status("failed", *reached, outcome.message) if outcome.state == "failed" else outcome
    run.write_status(status)
    word = "FINISHED" if status.ended_as_planned(last_epoch) else "KILLED" if status.state == "stopped" else "FAILED"
    unsent = coordinator.close(word)
    _tell(coordinator.progress(), told)
    if unsent:
        status = replace(status, lost_metrics=unsent)
        run.write_status(status)
        logger.warning("%d metrics did not reach the tracking server; history.json has those of every epoch", unsent)
    if isinstance(outcome, BaseException):
        raise outcome
    return status


class EpochEnds:
    """Calls a function when a further epoch has ended.

    Args:
        steps_per_epoch: number of steps in an epoch.
        on_epoch: the function to call.
    """

    def __init__(self, steps_per_epoch: int, on_epoch: Callable[[], object]) -> None:
        self._steps_per_epoch, self._on_epoch = steps_per_epoch, on_epoch
        self._epoch: int | None = None

    def look(self, progress: RunProgress) -> None:
        """Compare with the last progress. The first step of the next epoch is reported after the checkpoint."""
        epoch = max(progress.step - 1, 0) // self._steps_per_epoch
        if self._epoch is not None and epoch > self._epoch:
            self._on_epoch()
        self._epoch = epoch


def _log_fields(record: Mapping[str, Any], seen: list[RunProgress], steps_per_epoch: int) -> dict[str, Any]:
    epoch, step = divmod(seen[0].step, steps_per_epoch)
    return {"run": record["id"], "stage": record["stage"], "epoch": epoch, "step": step}


def _watch(
    thread: threading.Thread,
    coordinator: CoordinatorClient,
    stop: list[str],
    lost: threading.Event,
    seen: list[RunProgress],
    ends: EpochEnds,
) -> int:
    """Draw progress until the thread ends: a bar for each long phase, a line for each message.

    Returns:
        The number of messages that were shown.

    Args:
        thread: thread of the training.
        coordinator: coordinator of the run.
        stop: holds the name of a signal once it has come.
        lost: set once the run belongs to another process.
        seen: its only element is replaced by the newest progress.
        ends: receives each progress.
    """
    last_log = 0.0
    with ExitStack() as bars:
        bar: Progress | None = None
        phase, arithmetic, told = "", "", 0
        while thread.is_alive():
            thread.join(POLL_SECONDS)
            if lost.is_set():
                coordinator.abandon("the run belongs to another process")
                thread.join(ABANDON_SECONDS)
                return told
            if stop:  # repeated, because a restarted coordinator has forgotten it
                coordinator.request_stop(stop[0])
            seen[0] = progress = coordinator.progress()
            if progress.figures and time.monotonic() - last_log > LOG_SECONDS:
                last_log = time.monotonic()
                logger.debug("%s", progress.phase, extra={"figures": progress.figures})
            if progress.arithmetic not in ("", arithmetic):  # workers may continue on another device
                logger.info("computing in %s", arithmetic := progress.arithmetic)
            told = _tell(progress, told)
            ends.look(progress)
            if (drawn := drawn_bar(progress)) is not None:
                if bar is None or bar.name != drawn.name:
                    bars.close()
                    bar = bars.enter_context(Progress(drawn.name, drawn.total, drawn.unit, done=drawn.done))
                figures = {shown: progress.figures[n] for n, shown in _SHOWN_FIGURES.items() if n in progress.figures}
                bar.update(drawn.done, **figures)
            elif progress.phase != phase:
                logger.info("%s", progress.phase)
            phase = progress.phase
    return told


def _tell(progress: RunProgress, told: int) -> int:
    """Show the messages after the first ``told``; return the number of all messages."""
    told = min(told, len(progress.messages))  # there are fewer than before if the coordinator was restarted
    for message in progress.messages[told:]:
        logger.warning("%s", message.text, extra={} if message.rank is None else {"rank": message.rank})
    return len(progress.messages)


@dataclass(frozen=True)
class DrawnBar:
    """The content of a progress bar."""

    name: str
    done: int
    total: int
    unit: str


def drawn_bar(progress: RunProgress) -> DrawnBar | None:
    """Return the progress bar of a phase; None for a short one."""
    if progress.phase == "training":
        return DrawnBar("training", progress.step, progress.num_steps, "steps")
    if "share" in progress.figures:
        return DrawnBar(progress.phase, round(100 * progress.figures["share"]), 100, "%")
    return None


@contextmanager
def _signals() -> Iterator[list[str]]:
    """Handle SIGTERM and Ctrl-C: the first is added to the list, which asks for an orderly end; the second ends at
    once."""
    seen: list[str] = []

    def handle(number: int, frame: object) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(signal.Signals(number).name)
        logger.warning("%s: writing a checkpoint, then ending. A second signal ends at once", seen[0])

    # Python handles signals in the main thread only. In another thread, such as a sweep's trial, the process handles
    # them.
    main = threading.current_thread() is threading.main_thread()
    numbers = [signal.SIGINT, signal.SIGTERM] if main else []
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
