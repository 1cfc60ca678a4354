"""Keeps the Ray session of a block open, without importing Ray, which the block may turn out not to need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

_kept: ContextVar[ExitStack | None] = ContextVar("_kept", default=None)


@contextmanager
def keep_session() -> Iterator[None]:
    """Keep the first session of :mod:`unfused_ray.cluster` opened in this block, for all later ones in it.

    Ray takes seconds to start, and a job opens a session in each part that needs one.
    """
    with ExitStack() as until:
        token = _kept.set(until)
        try:
            yield
        finally:
            _kept.reset(token)


def end_of_block() -> ExitStack | None:
    """Return the stack that is closed at the end of the block of :func:`keep_session`; None outside of one."""
    return _kept.get()
