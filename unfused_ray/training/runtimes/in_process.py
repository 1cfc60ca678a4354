"""Training in this process, without Ray: the first step comes seconds after the start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from unfused_ray.clustering.clusterer import InProcessClusterer
from unfused_ray.config import RuntimeConfig
from unfused_ray.data.parts.executor import IN_PROCESS, Executor
from unfused_ray.data.stream.prefetch import LocalSource
from unfused_ray.runs.status import Status
from unfused_ray.tracking.mlflow import TrackedRun
from unfused_ray.training.coordinator import Coordinator
from unfused_ray.training.job import TrainingJob
from unfused_ray.training.runtimes.runtime import StartedTraining
from unfused_ray.training.worker.collectives import LocalCollectives
from unfused_ray.training.worker.device import set_threads
from unfused_ray.training.worker.loop import Worker


class InProcess:
    """A :class:`Runtime` of one worker, in this process."""

    executor: Executor = IN_PROCESS

    def describe(self, config: RuntimeConfig) -> dict[str, str]:
        """Describe nothing: this process takes what the machine has."""
        return {}

    @contextmanager
    def session(self, config: RuntimeConfig, data: Sequence[str], run_uri: str) -> Iterator[None]:
        """Open nothing."""
        yield

    @contextmanager
    def start(self, job: TrainingJob, tracked: TrackedRun | None) -> Iterator[StartedTraining]:
        """Start a coordinator in this process."""
        coordinator = Coordinator(tracked, job.first_step(job.resume_point))
        try:
            yield StartedTraining(lambda: _train(job, coordinator), coordinator)
        finally:
            coordinator.stop_tracking()


def _train(job: TrainingJob, coordinator: Coordinator) -> Status:
    threads = set_threads(job.config.runtime, 1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plan = job.clustering_plan(threads)
    labels = job.labels(InProcessClusterer(plan) if plan else None)
    source = LocalSource(job.planner, job.reader)
    worker = Worker(LocalCollectives(), device, job.planner, source, labels, coordinator, job.start_times)
    return job.train(worker, job.resume_point)
