"""Executors run a function on many arguments: in this process, or as the tasks of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Executor(Protocol):
    """Runs a function on many arguments, within ``open()``."""

    def open(self) -> AbstractContextManager[None]:
        """Start what the calls run on."""
        ...

    def run(
        self, function: Callable[..., T], arguments: Iterable[tuple[Any, ...]]
    ) -> AbstractContextManager[Iterator[tuple[int, T]]]:
        """Call a function with each of ``arguments``, which are made as they are needed.

        Gives pairs of an argument's number and its result, as they are done. No call runs when the context has ended.

        Raises:
            TaskEndedError: a call was ended from outside, or never begun.
            Exception: whatever a call raised, itself.
        """
        ...

    def share(self, value: T) -> Callable[[], T]:
        """Give a large value to all calls: pass them the function returned, which returns the value."""
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
    """A call that was ended from outside, or never begun; the message says how, and what may help."""


class InThisProcess:
    """Calls the function in this process, one argument at a time.

    Args:
        gpus_per_task: above 0, the calls compute on a GPU.
    """

    def __init__(self, gpus_per_task: float = 0.0) -> None:
        self._gpus_per_task = gpus_per_task

    def open(self) -> AbstractContextManager[None]:
        """Nothing needs to be started."""
        return nullcontext()

    @contextmanager
    def run(
        self, function: Callable[..., T], arguments: Iterable[tuple[Any, ...]]
    ) -> Iterator[Iterator[tuple[int, T]]]:
        """Call the function as its results are asked for."""
        yield ((number, function(*values)) for number, values in enumerate(arguments))

    def share(self, value: T) -> Callable[[], T]:
        """The value lies in this process already."""
        return lambda: value

    def refuse_impossible(self, paths: Mapping[str, str]) -> None:
        """Refuse to use a GPU where there is none; every path of this machine can be reached."""
        import torch  # a listing does not need it

        if self._gpus_per_task > (gpus := torch.cuda.device_count()):
            raise ValueError(f"gpus_per_task={self._gpus_per_task:g} must not exceed this machine's {gpus} GPUs")


IN_PROCESS = InThisProcess()
