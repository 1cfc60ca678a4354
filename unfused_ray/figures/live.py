"""Draws a run while it trains, in a thread of the process that watches it: its curves, and clips by cluster."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from unfused_ray.tracking.mlflow import TrackedRun, log_results

logger = logging.getLogger(__name__)

_SHARE = 100
"""The pause after a drawing is at least this many times the time that it took."""


class LivePictures:
    """Draws, at intervals, the pictures of one run that need no finished network, into its folder and its MLflow run.

    Args:
        tracked: returns the run in MLflow, once it has begun.
        run_uri: folder of the run.
        every_minutes: shortest time between two drawings; 0 draws none.
    """

    def __init__(self, tracked: Callable[[], TrackedRun], run_uri: str, every_minutes: float) -> None:
        self._tracked, self._run_uri, self._pause = tracked, run_uri, 60 * every_minutes
        self._next = time.monotonic() + self._pause
        self._thread: threading.Thread | None = None
        """Thread of the latest drawing."""

    def draw(self) -> None:
        """Start a drawing if it is time; return at once."""
        drawing = self._thread is not None and self._thread.is_alive()
        if self._pause and not drawing and time.monotonic() >= self._next:
            self._thread = threading.Thread(target=self._draw, name="pictures", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Wait until a started drawing is finished."""
        if self._thread is not None:
            self._thread.join()

    def _draw(self) -> None:
        started = time.monotonic()
        try:
            from unfused_ray.figures.run import write_progress  # here, because drawing takes a second to import

            log_results(self._tracked(), write_progress(self._run_uri), {})
        except (OSError, ValueError) as error:
            logger.warning("the pictures of %s could not be drawn this time: %s", self._run_uri, error)
        finally:  # also if an exception ends the thread, which would recur at each epoch
            took = time.monotonic() - started
            self._next = time.monotonic() + max(self._pause, _SHARE * took)
