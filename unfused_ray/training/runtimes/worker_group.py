"""Ray Train's trainer for this project: how workers find each other, and how long failed groups are replaced.

Ray Train's controller, an actor of its own, imports this module, so it contains nothing that is slow to import.
"""

from __future__ import annotations

import os
import sys
import textwrap
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
import torch
from ray.exceptions import ActorUnavailableError, NodeDiedError, RayActorError, RayError
from ray.train import ControllerError, PreemptionError, WorkerGroupError
from ray.train.backend import Backend
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.torch.config import _TorchBackend
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.controller.state import PreemptingState, ReschedulingState, RestartingState

from unfused_ray.training.coordinator import CoordinatorClient

_NODE_DIED = "its node has died"
"""Text by which Ray's head reports an actor whose node is lost; the exception shows it in no other way."""
_NODE_SECONDS = 20.0
"""Seconds within which Ray's head knows of most lost nodes: it waits 15 s for an answer."""


class GivenUpError(RuntimeError):
    """Worker groups have failed repeatedly in the same way: no other is started."""


class WorkerGroupTrainer(TorchTrainer):
    """TorchTrainer without Ray Train's placement group cleaner.

    The cleaner asks "a running Ray instance" whether the run's controller lives. If another cluster has been started on
    the machine, it asks that one, and then removes the placement group of a healthy run (seen with Ray 2.60). It serves
    for drivers that die; here the actors of a job end with its driver anyway.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if type(callback).__name__ != "PlacementGroupCleanerCallback"]


class NoteFailures(ControllerCallback, WorkerGroupCallback):
    """Reports every failed worker group to the coordinator, and ends the run if the coordinator says so.

    Among Ray Train's callbacks, only those of the controller learn of groups that fail before their workers are called,
    and learn of each group once. A ``UserCallback`` learns of a group that is taken away each time the controller looks
    at it.

    Args:
        coordinator: coordinator of the run.
    """

    def __init__(self, coordinator: CoordinatorClient) -> None:
        self._coordinator = coordinator
        self._nodes: list[str] = []  # nodes of the current group's workers

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Record the nodes of a new group. Called in Ray Train's controller."""
        self._nodes = [worker.metadata.node_id for worker in worker_group.get_workers()]

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Report a failed group. Called in Ray Train's controller, where an exception ends the run."""
        if current_state is previous_state or not isinstance(current_state, RestartingState | ReschedulingState):
            return
        error = current_state.training_failed_error
        if isinstance(_behind(error), WorkerGroupStartupTimeoutError):
            return  # no group has begun: there are still too few nodes
        failures = _failures(error)
        causes = [f"{who} failed ({_last_words(each)})" for who, each in failures.items()]
        # One lost node is enough: workers that have lost another one fail because of it, mostly before it is known to
        # be lost.
        lost = isinstance(previous_state, PreemptingState) or any(map(is_lost_node, failures.values()))
        is_silent = isinstance(error, WorkerGroupError) and len(failures) < len(self._nodes)
        if reason := self._coordinator.note_failure(causes, lost or (is_silent and self._has_lost_node())):
            raise GivenUpError(reason)

    def _has_lost_node(self) -> bool:
        """Return True if one of the group's several nodes is dead, or is found dead within ``_NODE_SECONDS``."""
        nodes, end = set(self._nodes), time.monotonic() + _NODE_SECONDS
        while len(nodes) > 1 and time.monotonic() < end:
            if nodes & {node["NodeID"] for node in ray.nodes() if not node["Alive"]}:
                return True
            time.sleep(1.0)
        return False


def is_lost_node(error: BaseException) -> bool:
    """Return True if a worker, or something it needs, was on a node that is lost, taken away or out of reach.

    Ray learns of a lost node at once, or up to half a minute later. Until then a worker there counts as *unavailable*;
    so does, for a moment, a worker whose process is killed on a busy machine.
    """
    if isinstance(error, WorkerHealthCheckFailedError):
        error = error.health_check_failure
        if isinstance(error, ActorUnavailableError):
            return True
    if isinstance(error, PreemptionError | NodeDiedError) or (isinstance(error, RayActorError) and error.preempted):
        return True
    return isinstance(error, RayError) and _NODE_DIED in str(error)


def _failures(error: Exception) -> dict[str, BaseException]:
    """Return the errors of a failed group, by worker."""
    if isinstance(error, WorkerGroupError):
        return {f"worker {rank}": each for rank, each in sorted(error.worker_failures.items())}
    return {"the worker group": _behind(error)}


def _behind(error: BaseException) -> BaseException:
    """Return the error because of which Ray Train could not start a group; return any other error unchanged."""
    if isinstance(error, ControllerError):
        error = error.controller_failure
    return error.__cause__ or error if isinstance(error, WorkerGroupStartupFailedError) else error


def _last_words(error: BaseException) -> str:
    """Return the last line of an error: Ray explains a lost process in a paragraph, or in a traceback."""
    return textwrap.shorten((str(error).strip().splitlines() or [type(error).__name__])[-1], 300)


class GroupTorchConfig(TorchConfig):
    """A process group that, if it cannot be opened, is tried once more with other workers."""

    @property
    def backend_cls(self) -> type[Backend]:
        """The backend that starts the group."""
        return _GroupBackend


class _GroupBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        with _failure_is_of_the_group():
            super().on_start(worker_group, backend_config)


@contextmanager
def _failure_is_of_the_group() -> Iterator[None]:
    """Make Ray Train start another group after an error that would otherwise end the run."""
    try:
        yield
    except RayError as error:
        raise WorkerGroupStartupFailedError("the workers did not find each other") from error


@dataclass
class LoopbackTorchConfig(TorchConfig):
    """A process group for workers of one machine that opens no port to the network.

    Workers usually find each other by torch's TCPStore, which listens on all interfaces. Here they meet in a file, and
    gloo listens on the loopback interface.
    """

    folder: str = ""
    """Folder of the files in which workers meet."""

    @property
    def backend_cls(self) -> type[Backend]:
        """The backend that starts the group."""
        return _LoopbackBackend


class _LoopbackBackend(Backend):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        assert isinstance(backend_config, LoopbackTorchConfig)
        store = f"file://{backend_config.folder}/group-{uuid.uuid4().hex}"
        world = len(worker_group)
        use_gpu = worker_group.get_resources_per_worker().get("GPU", 0) > 0
        backend = "nccl" if use_gpu else "gloo"
        with _failure_is_of_the_group():
            ray.get(
                [
                    worker_group.execute_single_async(
                        rank, _open_group, store, backend, rank, world, backend_config.timeout_s
                    )
                    for rank in range(world)
                ]
            )


def _open_group(store: str, backend: str, rank: int, world: int, timeout_s: int) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    torch.distributed.init_process_group(
        backend, init_method=store, rank=rank, world_size=world, timeout=timedelta(seconds=timeout_s)
    )
