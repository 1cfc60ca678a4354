"""Training in this process, without Ray: the first step comes seconds after the start."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from unfused_ray.clustering.clusterer import InProcessClusterer
from unfused_ray.config import RuntimeConfig
from unfused_ray.data.stream.prefetch import LocalSource
from unfused_ray.machine.threads import usable_cores
from unfused_ray.runs.start_times import StartTimes
from unfused_ray.runs.status import Status
from unfused_ray.tracking.mlflow import TrackedRun
from unfused_ray.training.coordinator import Coordinator
from unfused_ray.training.job import TrainingJob
from unfused_ray.training.runtimes.runtime import Resources, Runtime, StartedTraining
from unfused_ray.training.worker.collectives import LocalCollectives
from unfused_ray.training.worker.device import (
    refuse_missing_gpu,
    set_threads,
    set_workspace,
    warn_of_idle_gpu,
    warn_of_load,
)
from unfused_ray.training.worker.loop import Worker

logger = logging.getLogger(__name__)

_MOST_DECODERS = 8
"""Largest number of threads that decode beside a training on a GPU: more would delay the thread that gives the GPU its
work."""


class InProcess(Runtime):
    """One worker, in this process."""

    def refuse_impossible(self, config: RuntimeConfig) -> None:
        """Refuse a missing GPU if one is asked for; warn of settings for worker groups, perhaps a recipe's, that have
        no effect."""
        refuse_missing_gpu(config)
        for field in ("num_workers", "cpus_per_worker", "compress_gradients"):
            if (value := getattr(config, field)) != RuntimeConfig.model_fields[field].default:
                logger.warning("runtime.%s=%s is ignored: the training runs in one process", field, value)

    def uses_gpus(self, config: RuntimeConfig) -> bool:
        """Return True if torch sees a GPU."""
        return torch.cuda.is_available()

    def resources(self, config: RuntimeConfig) -> Resources:
        """Return one worker, and the CPUs that this process may use."""
        cores = usable_cores()
        return Resources(1, 1, float(cores), float(_num_decoders(cores)))

    def session(
        self, config: RuntimeConfig, sources: Mapping[str, tuple[str, ...]], run_uri: str, start_times: StartTimes
    ) -> AbstractContextManager[None]:
        """Open nothing; clips may be labelled on a GPU of this process before it trains on it."""
        set_workspace(config)
        return nullcontext()

    @contextmanager
    def start(self, job: TrainingJob, tracked: TrackedRun | None) -> Iterator[StartedTraining]:
        """Start a coordinator in this process."""
        coordinator = Coordinator(tracked, job.first_step(job.resume_point))
        if (request := job.stage.clustering) is not None and request.num_shards > 1:
            logger.warning(
                "method.assignment_shards=%d is ignored: the training runs in one process", request.num_shards
            )
        if not torch.cuda.is_available():
            warn_of_idle_gpu()
            warn_of_load(job.config.runtime, 1, _saved_threads(job))
        try:
            yield StartedTraining(lambda: _train(job, coordinator), coordinator)
        finally:
            coordinator.stop_tracking()


def _train(job: TrainingJob, coordinator: Coordinator) -> Status:
    threads = set_threads(job.config.runtime, 1, _saved_threads(job))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plan = job.clustering_plan(threads)
    labels = job.labels(InProcessClusterer(plan) if plan else None)
    source = LocalSource(job.planner, job.reader, _num_decoders(usable_cores()))
    worker = Worker(LocalCollectives(), device, job.planner, source, labels, coordinator, job.start_times)
    return job.train(worker, job.resume_point)


def _num_decoders(cores: int) -> int:
    """Return the number of decoding threads: beside a training on CPUs, a second one would take its cores."""
    return min(_MOST_DECODERS, max(1, cores - 1)) if torch.cuda.is_available() else 1


def _saved_threads(job: TrainingJob) -> int | None:
    return job.resume_point.threads if job.resume_point else None
