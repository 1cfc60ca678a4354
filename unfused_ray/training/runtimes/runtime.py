"""The interface of a runtime: the place and the processes of a training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from unfused_ray.config import RuntimeConfig
from unfused_ray.data.parts.executor import IN_PROCESS, Executor
from unfused_ray.runs.status import Status
from unfused_ray.tracking.mlflow import TrackedRun
from unfused_ray.training.coordinator import Coordinator
from unfused_ray.training.job import TrainingJob


@dataclass(frozen=True)
class StartedTraining:
    """A training that is ready to run."""

    run: Callable[[], Status]
    """Trains to the end; blocks."""
    coordinator: Coordinator


class Runtime(ABC):
    """A place to train. By default it is this process, which needs no session and takes what the machine has."""

    executor: Executor = IN_PROCESS
    """Computes what a training needs beforehand, such as the statistics of its clips."""

    def describe(self, config: RuntimeConfig) -> dict[str, str]:
        """Resources that a training takes, by heading; a session is open.

        Raises:
            ValueError: the cluster lacks them.
        """
        return {}

    def session(self, config: RuntimeConfig, data: Sequence[str], run_uri: str) -> AbstractContextManager[None]:
        """Open the cluster for a training.

        Raises:
            ValueError: the cluster lacks resources, or its nodes cannot reach the data or the run.
        """
        return nullcontext()

    @abstractmethod
    def start(self, job: TrainingJob, tracked: TrackedRun | None) -> AbstractContextManager[StartedTraining]:
        """Start the coordinator and the other actors of a training, and end them afterwards.

        Args:
            job: to train; a session is open.
            tracked: the run in MLflow; None if it is not tracked.
        """
