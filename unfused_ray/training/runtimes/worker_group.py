"""Ray Train's trainer for this project: how workers find each other, and who learns of their failures.

Ray Train's controller, an actor of its own, imports this module: it holds nothing that takes long to import.
"""

from __future__ import annotations

import os
import sys
import textwrap
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
import torch
from ray.train import UserCallback
from ray.train.backend import Backend
from ray.train.torch import TorchConfig, TorchTrainer

from unfused_ray.training.coordinator import CoordinatorClient


class WorkerGroupTrainer(TorchTrainer):
    """TorchTrainer without Ray Train's placement group cleaner.

    The cleaner asks "a running Ray instance" whether the run's controller lives. Where another cluster has been started
    on the machine it asks that one, and then removes the placement group of a healthy run (seen with Ray 2.60). Its
    purpose, a driver that dies, needs no cleaner here: the actors of a job end with it.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if type(callback).__name__ != "PlacementGroupCleanerCallback"]


class NoteFailures(UserCallback):
    """Notes every failed worker with the coordinator.

    Args:
        coordinator: of the run.
    """

    def __init__(self, coordinator: CoordinatorClient) -> None:
        self._coordinator = coordinator

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray Train's controller."""
        for rank, error in sorted(worker_exceptions.items()):
            # Ray explains a lost process in a paragraph; its first words say what happened.
            cause = textwrap.shorten((str(error).strip().splitlines() or [type(error).__name__])[-1], 300)
            # Not waited for: this runs in Ray Train's controller, and whatever it raises would end the run.
            self._coordinator.note_failure(f"worker {rank} failed ({cause})")


@dataclass
class LoopbackTorchConfig(TorchConfig):
    """A process group for workers of one machine that opens no port to the network.

    torch's TCPStore, by which workers find each other, listens on all interfaces; here they meet in a file, and gloo
    listens on the loopback interface.
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
        ray.get(
            [worker_group.execute_single_async(rank, _open_group, store, backend, rank, world) for rank in range(world)]
        )


def _open_group(store: str, backend: str, rank: int, world: int) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    torch.distributed.init_process_group(
        backend, init_method=store, rank=rank, world_size=world, timeout=timedelta(hours=12)
    )
