"""Executors run a function on many arguments: in this process, or as the tasks of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Executor(Protocol):
    """Runs a function on many arguments, within ``open()``."""

    def open(self) -> AbstractContextManager[None]:
        """Start or join whatever the calls run on."""
        ...

    def run(
        self, function: Callable[..., T], arguments: Iterable[tuple[Any, ...]]
    ) -> AbstractContextManager[Iterator[tuple[int, T]]]:
        """Call a function with each of ``arguments``, which is consumed as tasks start.

        Gives (number of the argument, result) pairs in the order in which the calls finish. No call is running once the
        context has ended.

        Raises:
            TaskEndedError: a call was ended from outside, or never begun.
            Exception: the exception that a call raised, unchanged.
        """
        ...

    def share(self, value: T) -> Callable[[], T]:
        """Give a large value to all calls: pass them the returned function, which returns the value."""
        ...

    def refuse_impossible(self, paths: Mapping[str, str]) -> None:
        """Refuse a job that could never run here.

        Args:
            paths: the paths or URIs that the calls read and write, by the name of their field.

        Raises:
            ValueError: names the field.
        """
        ...


class TaskEndedError(OSError):
    """A call that was ended from outside, or never begun; the message gives the cause and a remedy."""


class InThisProcess:
    """Calls the function in this process, one argument at a time.

    Args:
        gpus_per_task: if above 0, the calls compute on a GPU.
    """

    def __init__(self, gpus_per_task: float = 0.0) -> None:
        self._gpus_per_task = gpus_per_task

    def open(self) -> AbstractContextManager[None]:
        """Do nothing: there is nothing to start."""
        return nullcontext()

    @contextmanager
    def run(
        self, function: Callable[..., T], arguments: Iterable[tuple[Any, ...]]
    ) -> Iterator[Iterator[tuple[int, T]]]:
        """Run each call when its result is asked for."""
        yield ((number, function(*values)) for number, values in enumerate(arguments))

    def share(self, value: T) -> Callable[[], T]:
        """Return the value: it is in this process already."""
        return lambda: value

    def refuse_impossible(self, paths: Mapping[str, str]) -> None:
        """Refuse to use a GPU where there is none; every path of this machine can be reached."""
        import torch  # a listing does not need it

        if self._gpus_per_task > (gpus := torch.cuda.device_count()):
            raise ValueError(f"gpus_per_task={self._gpus_per_task:g} must not exceed this machine's {gpus} GPUs")


IN_PROCESS = InThisProcess()
