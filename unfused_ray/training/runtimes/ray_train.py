"""Training on a Ray Train worker group; a group that fails is replaced, from the newest checkpoint."""

from __future__ import annotations

import logging
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import torch
from ray.exceptions import RayActorError, RayError
from ray.train import ControllerError, DataConfig, FailureConfig, RunConfig, ScalingConfig

from unfused_ray import cluster, logs, storage
from unfused_ray.clustering.actor import RayClusterer, start_assignment_actor
from unfused_ray.config import RuntimeConfig
from unfused_ray.data.parts.executor import IN_PROCESS, Executor
from unfused_ray.data.parts.ray_tasks import RayTasks
from unfused_ray.data.stream.ray_source import RaySource, execution_options, make_dataset
from unfused_ray.machine import memory
from unfused_ray.runs.checkpoints import MANIFEST
from unfused_ray.runs.resume import ResumePoint, find_fork_point, find_resume_point
from unfused_ray.runs.start_times import StartTimes, process_started
from unfused_ray.runs.status import Status
from unfused_ray.tracking.mlflow import TrackedRun
from unfused_ray.training.coordinator import CoordinatorClient
from unfused_ray.training.job import TrainingJob
from unfused_ray.training.runtimes import worker_resources
from unfused_ray.training.runtimes.remote_coordinator import start_coordinator
from unfused_ray.training.runtimes.runtime import Resources, Runtime, StartedTraining, T
from unfused_ray.training.runtimes.worker_group import (
    GivenUpError,
    GroupTorchConfig,
    LoopbackTorchConfig,
    NoteFailures,
    WorkerGroupTrainer,
)
from unfused_ray.training.worker.collectives import CONTROL_SECONDS, GPU_SECONDS, DistributedCollectives
from unfused_ray.training.worker.device import reason_without_gpu, set_threads, warn_of_load
from unfused_ray.training.worker.loop import LOOK_SECONDS, Worker

logger = logging.getLogger(__name__)


class RayTrain(Runtime):
    """Workers on the nodes of a Ray cluster."""

    executor: Executor = RayTasks()
    has_assignment_actor = True

    def describe(self, config: RuntimeConfig) -> dict[str, str]:
        """Return the workers and the resources of each."""
        cpus = worker_resources.worker_cpus(config)
        return {"workers": f"{config.num_workers} × {cpus:g} CPU, {config.gpus_per_worker:g} GPU"}

    def refuse_impossible(self, config: RuntimeConfig) -> None:
        """Refuse several workers on one GPU, whatever resources the cluster has."""
        worker_resources.refuse_shared_gpus(config)

    def uses_gpus(self, config: RuntimeConfig) -> bool:
        """Return True if each worker asks for a GPU or a share of one."""
        return config.gpus_per_worker > 0

    def resources(self, config: RuntimeConfig) -> Resources:
        """Return the resources of the cluster, and those that the workers leave."""
        cpus = cluster.capacity()["CPU"]
        nodes = sum(node["Alive"] for node in ray.nodes())
        left = cpus - config.num_workers * worker_resources.worker_cpus(config)
        return Resources(config.num_workers, nodes, cpus, left)

    @contextmanager
    def session(
        self, config: RuntimeConfig, sources: Mapping[str, tuple[str, ...]], run_uri: str, start_times: StartTimes
    ) -> Iterator[None]:
        """Join or start a cluster, and refuse a training that cannot run there."""
        with cluster.session():
            start_times.reach("Ray started")
            cluster.refuse_local_paths({**sources, "output": (run_uri,)})
            worker_resources.worker_cpus(config)
            if config.gpus_per_worker and (reason := _on_a_gpu(config, reason_without_gpu)):
                raise ValueError(
                    f"runtime.gpus_per_worker={config.gpus_per_worker:g}: a node of the cluster has a GPU that torch "
                    f"cannot use there: {reason}"
                )
            if not config.gpus_per_worker and (gpus := cluster.capacity().get("GPU")):
                logger.warning(
                    "the workers train on CPUs, and the cluster has %g GPUs: --runtime.gpus-per-worker 1 gives one to "
                    "each worker (--runtime.num-workers)",
                    gpus,
                )
            yield

    def several_nodes(self) -> str:
        """Return the nodes of the session's cluster."""
        return cluster.several_nodes()

    def labelling(self, config: RuntimeConfig) -> Executor:
        """Return tasks that have a worker's share of a GPU, or the driver's process if workers have none."""
        return RayTasks(config.gpus_per_worker) if config.gpus_per_worker else IN_PROCESS

    def rehearse(self, config: RuntimeConfig, work: Callable[[], T]) -> T:
        """Call a function in a task with a worker's share of a GPU if the driver has none; otherwise in this
        process."""
        return _on_a_gpu(config, work) if config.gpus_per_worker and not torch.cuda.is_available() else work()

    @contextmanager
    def start(self, job: TrainingJob, tracked: TrackedRun | None) -> Iterator[StartedTraining]:
        """Start the coordinator's actor and, if labels are clustered, the assignment actor."""
        runtime, saved = job.config.runtime, job.resume_point.threads if job.resume_point else None
        if cluster.is_one_machine() and not runtime.gpus_per_worker:
            warn_of_load(runtime, runtime.num_workers, saved)
        plan, request = job.clustering_plan(), job.stage.clustering
        if request is not None:
            worker_resources.refuse_few_gpus(runtime, request.num_shards, request.gpus_per_shard)
        coordinator, actor = start_coordinator(tracked, job.first_step(job.resume_point))
        assignment = start_assignment_actor(plan, request.num_shards) if plan and request else None
        try:
            yield StartedTraining(lambda: _fit(job, coordinator, assignment), coordinator)
        finally:
            ray.kill(actor)
            if assignment is not None:
                ray.kill(assignment)


def _on_a_gpu(config: RuntimeConfig, work: Callable[[], T]) -> T:
    """Call a function in a task that reserves a worker's share of a GPU; a node with a GPU may first have to start."""
    logger.info("waiting for a GPU of the cluster")
    with RayTasks(config.gpus_per_worker).run(work, [()]) as results:
        return next(results)[1]


def _fit(job: TrainingJob, coordinator: CoordinatorClient, assignment: ray.actor.ActorHandle | None) -> Status:
    """Run worker groups until one ends the training, or until they have failed too often."""
    runtime = job.config.runtime
    # On CPUs the workers' own group is gloo, like the control group; a step there may take any time.
    seconds = GPU_SECONDS if runtime.gpus_per_worker else CONTROL_SECONDS
    # Ray Train would change the workers' working directory. Paths are absolute here, but tracebacks are not.
    variables = {
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": f"{LOOK_SECONDS:g}",  # at least as often as the workers look
    }
    if is_one_machine := cluster.is_one_machine():
        variables["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"  # saves a process: no other node could be drained
    dataset = make_dataset(job.planner, job.reader, coordinator.execution)
    with tempfile.TemporaryDirectory(prefix="unfused-ray-train-") as folder, cluster.variables(variables):
        trainer = WorkerGroupTrainer(
            _WorkerMain(job, coordinator, assignment),
            torch_config=LoopbackTorchConfig(timeout_s=seconds, folder=folder)
            if is_one_machine
            else GroupTorchConfig(timeout_s=seconds),
            scaling_config=ScalingConfig(
                num_workers=runtime.num_workers,
                use_gpu=runtime.gpus_per_worker > 0,
                resources_per_worker={"CPU": worker_resources.worker_cpus(runtime)}
                | ({"GPU": runtime.gpus_per_worker} if runtime.gpus_per_worker else {}),
            ),
            # Ray Train's own book-keeping is not used: checkpoints are the project's, and the coordinator gives up a
            # run that fails repeatedly at one step, or before its first.
            run_config=RunConfig(
                storage_path=folder,
                failure_config=FailureConfig(max_failures=-1),
                callbacks=[NoteFailures(coordinator)],
                worker_runtime_env={"env_vars": memory.ENVIRONMENT},
            ),
            datasets={"clips": dataset},
            dataset_config=DataConfig(execution_options=execution_options()),
        )
        try:
            result = trainer.fit()
        except ControllerError as error:
            if not isinstance(error.controller_failure, GivenUpError):
                raise
            return Status("failed", 0, 0, str(error.controller_failure))  # the driver knows the position
    status: Status = result.return_value
    return status


@dataclass(frozen=True)
class _WorkerMain:
    """The main function of a train worker."""

    job: TrainingJob
    coordinator: CoordinatorClient
    assignment: ray.actor.ActorHandle | None

    def __call__(self) -> Status:
        start_times = self.job.start_times
        start_times.reach("worker process", process_started())
        start_times.reach("worker called")
        collectives = DistributedCollectives(compress=self.job.config.runtime.compress_gradients)
        with logs.forwarded(self.coordinator.note, collectives.rank):
            try:
                return self._train(collectives)
            except RayActorError as error:  # pickle cannot send it; the controller would learn only that
                raise RayError(str(error)) from error

    def _train(self, collectives: DistributedCollectives) -> Status:
        job = self.job
        # Rank 0 decides for all whether and where to start, because a second look at the storage could find another
        # checkpoint.
        refusal, group, resume_point = collectives.agree(self._beginning() if collectives.rank == 0 else [None] * 3)
        job.start_times.reach("workers agreed")
        saved = resume_point.threads if resume_point else None
        set_threads(job.config.runtime, ray.train.get_context().get_local_world_size(), saved)
        if refusal:
            return Status("failed", 0, 0, refusal)  # the driver knows the position
        source = RaySource(
            ray.train.get_dataset_shard("clips"),
            job.planner,
            job.reader.crop_samples,
            collectives.rank,
            collectives.world,
            self.coordinator.set_execution,
        )
        clusterer = RayClusterer(self.assignment, group, collectives.world) if self.assignment is not None else None
        labels, device = job.labels(clusterer, collectives.rank), ray.train.torch.get_device()
        worker = Worker(
            collectives, device, job.planner, source, labels, self.coordinator, job.start_times, _leaving_nodes
        )
        return job.train(worker, resume_point)

    def _beginning(self) -> list[Any]:
        """Return the reason that this worker group may not start, or ''; a new name for the group; and the resume
        point."""
        try:
            resume_point = self._resume_point()
        except (ValueError, FileNotFoundError) as error:  # the driver refuses the run for these, too
            return [str(error), "", None]
        return [self.coordinator.begin_attempt(self.job.first_step(resume_point)), uuid.uuid4().hex, resume_point]

    def _resume_point(self) -> ResumePoint | None:
        """Return the driver's resume point, or the run's own newest one if this is not the first worker group.

        If the run is a fork whose source has trained on and pruned the driver's checkpoint, return the source's newest
        one.

        Raises:
            ValueError: there are checkpoints, but none verifies.
            FileNotFoundError: there are no checkpoints any more.
        """
        begun = self.job.resume_point
        if self.coordinator.is_first_attempt():
            return begun
        own = find_resume_point(self.job.run_uri)
        if own is not None or begun is None or storage.exists(storage.join(begun.checkpoint.uri, MANIFEST)):
            return own or begun
        newest = find_fork_point(self.job.config.fork)
        self.coordinator.note(
            f"the checkpoint of {self.job.config.fork} that the run began with, after {begun.position.epoch} epochs, "
            f"is no longer there: the run begins anew with the one after {newest.position.epoch}"
        )
        return newest


def _leaving_nodes() -> Sequence[str]:
    """Return the group's nodes that are being drained, as by a spot notice; all its workers must call it together."""
    info = ray.train.get_preemption_info()
    return info.preempted_node_ids if info else ()
