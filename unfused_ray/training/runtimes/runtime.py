"""The interface of a runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from unfused_ray.config import RuntimeConfig
from unfused_ray.data.parts.executor import Executor
from unfused_ray.runs.status import Status
from unfused_ray.tracking.mlflow import TrackedRun
from unfused_ray.training.coordinator import CoordinatorClient
from unfused_ray.training.job import TrainingJob


@dataclass(frozen=True)
class StartedTraining:
    """A training that is ready to run."""

    run: Callable[[], Status]
    """Trains to the end; blocks."""
    coordinator: CoordinatorClient


class Runtime(Protocol):
    """Place and processes of a training."""

    executor: Executor
    """Computes what a training needs beforehand, such as the statistics of its clips."""

    def describe(self, config: RuntimeConfig) -> dict[str, str]:
        """Resources that a training takes, by heading; a session is open.

        Raises:
            ValueError: the cluster lacks them.
        """
        ...

    def session(self, config: RuntimeConfig, data: Sequence[str], run_uri: str) -> AbstractContextManager[None]:
        """Open the cluster for a training, as far as it needs one.

        Raises:
            ValueError: the cluster lacks resources, or its nodes cannot reach the data or the run.
        """
        ...

    def start(self, job: TrainingJob, tracked: TrackedRun | None) -> AbstractContextManager[StartedTraining]:
        """Start the coordinator of a training and whatever else it needs, and end them afterwards.

        Args:
            job: to train; a session is open.
            tracked: the run in MLflow; None if it is not tracked.
        """
        ...
