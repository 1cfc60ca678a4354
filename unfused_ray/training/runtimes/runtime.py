"""The interface of a runtime: where and in which processes a training runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

from unfused_ray.config import RuntimeConfig
from unfused_ray.data.parts.executor import IN_PROCESS, Executor
from unfused_ray.runs.start_times import StartTimes
from unfused_ray.runs.status import Status
from unfused_ray.tracking.mlflow import TrackedRun
from unfused_ray.training.coordinator import CoordinatorClient
from unfused_ray.training.job import TrainingJob

T = TypeVar("T")


@dataclass(frozen=True)
class StartedTraining:
    """A training that is ready to run."""

    run: Callable[[], Status]
    """Train to the end; blocks until then."""
    coordinator: CoordinatorClient


@dataclass(frozen=True)
class Resources:
    """Resources that a training has, for a forecast of its duration."""

    num_workers: int
    num_nodes: int
    cpus: float
    """Number of CPUs of all nodes."""
    decode_cpus: float
    """Number of CPUs that the workers leave for decoding."""


class Runtime(ABC):
    """A place to train. By default it is this process, which needs no session and uses this machine's resources."""

    executor: Executor = IN_PROCESS
    """Computes results that a training needs beforehand, such as the statistics of its clips."""

    has_assignment_actor: bool = False
    """True if labels are clustered in separate processes, on all cores of their nodes."""

    def describe(self, config: RuntimeConfig) -> dict[str, str]:
        """Return the resources that a training takes, by heading; a session is open."""
        return {}

    def refuse_impossible(self, config: RuntimeConfig) -> None:  # noqa: B027 - a cluster is not asked before its session
        """Refuse, before anything is started, a training that this machine cannot run.

        Raises:
            ValueError: it cannot; names the field.
        """

    @abstractmethod
    def uses_gpus(self, config: RuntimeConfig) -> bool:
        """Return True if workers compute on GPUs."""

    @abstractmethod
    def resources(self, config: RuntimeConfig) -> Resources:
        """Return the resources that a training would have; a session is open."""

    def session(
        self, config: RuntimeConfig, sources: Mapping[str, tuple[str, ...]], run_uri: str, start_times: StartTimes
    ) -> AbstractContextManager[None]:
        """Open the cluster for a training.

        Args:
            config: settings of the runtime.
            sources: URIs of the shards, by field.
            run_uri: folder of the run.
            start_times: receives the time at which the cluster has started.

        Raises:
            ValueError: the cluster lacks resources, or its nodes cannot reach the data or the run.
        """
        return nullcontext()

    def several_nodes(self) -> str:
        """Return the nodes of the cluster, or the autoscaler that may add some, as text; '' for a single machine.

        A session is open.
        """
        return ""

    def labelling(self, config: RuntimeConfig) -> Executor:
        """Return the executor that embeds clips which are labelled once before the run: on GPUs if the run trains on
        them."""
        return IN_PROCESS

    def rehearse(self, config: RuntimeConfig, work: Callable[[], T]) -> T:
        """Call a function where a worker would compute: in this process, or on a node with a GPU; a session is open."""
        return work()

    @abstractmethod
    def start(self, job: TrainingJob, tracked: TrackedRun | None) -> AbstractContextManager[StartedTraining]:
        """Start the coordinator and the other actors of a training, and end them afterwards.

        Args:
            job: the training; a session is open.
            tracked: the run in MLflow; None if it is not tracked.
        """
