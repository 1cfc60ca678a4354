"""The two runtimes of the one loop: this process alone, or a Ray Train worker group."""

from __future__ import annotations

import logging
import os
import tempfile
import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import ray
import ray.train
import torch
from ray.train import DataConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig
from torch import Tensor

from unfused_ray import cluster, logs, memory, storage
from unfused_ray.clustering.actor import RayClusterer, start_assignment_actor
from unfused_ray.clustering.clusterer import Clusterer, ClusteringPlan, FixedLabels, InProcessClusterer, NoLabels
from unfused_ray.config import DecarConfig, PretrainConfig, TrainingConfig
from unfused_ray.data.shards.format import Statistics
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.data.stream.plan import Planner
from unfused_ray.data.stream.prefetch import LocalSource, Prefetcher
from unfused_ray.data.stream.ray_source import RaySource, execution_options, make_dataset
from unfused_ray.data.stream.read import BlockReader
from unfused_ray.methods.method import Method
from unfused_ray.runs.checkpoints import CheckpointStore, Position
from unfused_ray.runs.run import ASSIGNMENTS, PSEUDO_LABELS
from unfused_ray.runs.start_times import Milestones, process_started
from unfused_ray.runs.status import Status
from unfused_ray.training.coordinator import Coordinator, RemoteCoordinator, WantedSegment
from unfused_ray.training.runtimes.worker_group import LoopbackTorchConfig, NoteFailures, WorkerGroupTrainer
from unfused_ray.training.stages.stages import stage_of
from unfused_ray.training.worker.collectives import Alone, Distributed
from unfused_ray.training.worker.device import set_threads
from unfused_ray.training.worker.loop import Loop, Start, Worker, passes_left

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What every worker needs to know of a run; only numbers, so it travels."""

    config: TrainingConfig
    run_uri: str
    index: ClipIndex
    statistics: Statistics
    warm: dict[str, dict[str, Tensor]]
    milestones: Milestones = field(default_factory=Milestones)

    @property
    def planner(self) -> Planner:
        """The plan of the run's passes."""
        return Planner(self.index, self.config.seed, self.config.batch)

    @property
    def reader(self) -> BlockReader:
        """What carries the plan out."""
        crop = self.config.crop
        samples = crop.num_samples(self.config.front_end.sample_rate)
        return BlockReader(self.config.seed, self.config.batch.block, crop, samples)

    def clustering(self, threads: int = 0) -> ClusteringPlan | None:
        """What is clustered each epoch, and how; None where nothing is."""
        method = self._clustering_method
        if method is None:
            return None
        return ClusteringPlan(
            num_clips=self.index.num_clips,
            dim=method.projection_dim,
            num_clusters=method.num_clusters,
            iterations=method.kmeans_iterations,
            seed=self.config.seed,
            assignments=storage.join(self.run_uri, ASSIGNMENTS),
            threads=threads,
        )

    def start_clustering(self) -> ray.actor.ActorHandle | None:
        """Start the assignment actor; None where nothing is clustered."""
        plan, method = self.clustering(), self._clustering_method
        if plan is None or method is None:
            return None
        return start_assignment_actor(plan, method.assignment_shards)

    @property
    def _clustering_method(self) -> DecarConfig | None:
        """Settings of the method that clusters."""
        method = self.config.method if isinstance(self.config, PretrainConfig) else None
        return method if isinstance(method, DecarConfig) else None

    @property
    def given_labels(self) -> FixedLabels | NoLabels:
        """The labels of a run that clusters nothing."""
        if isinstance(self.config, PretrainConfig):
            return NoLabels()
        return FixedLabels(storage.join(self.run_uri, PSEUDO_LABELS))

    def build_method(self) -> Method:
        """The method with the weights that the run begins with."""
        torch.manual_seed(self.config.seed)
        method = stage_of(self.config).build_method(self.run_uri)
        for name, tensors in self.warm.items():
            if name == "encoder":
                method.load_encoder(tensors)
            else:
                method.load_all(tensors)
        return method

    def train(self, worker: Worker, start: Start | None) -> Status:
        """Train on one worker, from what :meth:`start` has found.

        Raises:
            RuntimeError: out of memory; names the settings that decide.
            Exception: whatever else ended it.
        """
        method = self.build_method()
        passes = list(passes_left(self.config.last_epoch, method.labels_from, start))
        # Before the loop: the first blocks are read while it is built, which takes torch a second or two.
        with closing(Prefetcher(worker.source, passes, self.config.runtime.prefetch_blocks)) as prefetcher:
            loop = Loop(self.config, self.run_uri, self.statistics, method, worker, start)
            self.milestones.reach("loop built")
            return self._run(loop, prefetcher)

    def _run(self, loop: Loop, prefetcher: Prefetcher) -> Status:
        worker = loop.worker
        try:
            return loop.run(prefetcher)
        except torch.OutOfMemoryError as error:
            worker.coordinator.failed_at(loop.steps_done)
            batch = self.config.batch
            raise RuntimeError(
                f"out of memory on {worker.device} with batch.block={batch.block} (b) and "
                f"batch.blocks_per_step={batch.blocks_per_step} (G): the memory of a step grows with b alone; lower "
                "batch.block and raise batch.blocks_per_step"
            ) from error
        except Exception:
            worker.coordinator.failed_at(loop.steps_done)
            raise

    def first_step(self, start: Start | None) -> int:
        """Global batches that are done where the run goes on."""
        return start.position.steps(self.planner.num_steps("train")) if start else 0

    def start(self) -> Start | None:
        """Where the run goes on: its newest whole checkpoint, or that of the run it is forked from, or None."""
        own = CheckpointStore(self.run_uri, self.config.checkpoint.keep).newest()
        if own is not None:
            return Start(own, own.position, own.bank_uri)
        if not self.config.fork:
            return None
        other = CheckpointStore(self.config.fork, keep=1).newest()
        if other is None:
            raise FileNotFoundError(f"fork={self.config.fork} holds no whole checkpoint: give the folder of a run")
        # The bank and the labels may not fit the new settings: they are made anew at the start of the epoch.
        return Start(other, Position(other.position.epoch, 0), None)


def run_in_process(job: Job, coordinator: Coordinator) -> Status:
    """Train in this process, without Ray: the first step comes seconds after the start."""
    threads = set_threads(job.config.runtime, 1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plan = job.clustering(threads)
    clusterer: Clusterer = job.given_labels if plan is None else InProcessClusterer(plan)
    source = LocalSource(job.planner, job.reader)
    worker = Worker(Alone(), device, job.planner, source, clusterer, coordinator, job.milestones)
    return job.train(worker, job.start())


def run_workers(job: Job, coordinator: ray.actor.ActorHandle, assignment: ray.actor.ActorHandle | None) -> Status:
    """Train on a Ray Train worker group; a group that fails is started anew from the newest checkpoint.

    Args:
        job: the run.
        coordinator: actor of :class:`Coordinator`.
        assignment: the assignment actor; None where nothing is clustered.
    """
    runtime = job.config.runtime
    # Ray Train would change the working directory of its workers; paths are absolute here, but tracebacks are not.
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    dataset = make_dataset(job.planner, job.reader, WantedSegment(coordinator))
    with tempfile.TemporaryDirectory(prefix="unfused-ray-train-") as folder:
        trainer = WorkerGroupTrainer(
            _WorkerMain(job, coordinator, assignment),
            torch_config=LoopbackTorchConfig(folder=folder)
            if cluster.is_one_machine()
            else TorchConfig(timeout_s=12 * 3600),
            scaling_config=ScalingConfig(
                num_workers=runtime.num_workers,
                use_gpu=runtime.gpus_per_worker > 0,
                resources_per_worker={"CPU": cluster.worker_cpus(runtime)}
                | ({"GPU": runtime.gpus_per_worker} if runtime.gpus_per_worker else {}),
            ),
            # Ray Train's own book-keeping is not used: checkpoints are the project's, and the coordinator gives up on
            # a run that fails again and again at one step.
            run_config=RunConfig(
                storage_path=folder,
                failure_config=FailureConfig(max_failures=-1),
                callbacks=[NoteFailures(coordinator)],
                worker_runtime_env={"env_vars": memory.ENVIRONMENT},
            ),
            datasets={"clips": dataset},
            dataset_config=DataConfig(execution_options=execution_options()),
        )
        result = trainer.fit()
    status: Status = result.return_value
    return status


@dataclass(frozen=True)
class _WorkerMain:
    """What a train worker runs."""

    job: Job
    coordinator: ray.actor.ActorHandle
    assignment: ray.actor.ActorHandle | None

    def __call__(self) -> Status:
        milestones = self.job.milestones
        milestones.reach("worker process", process_started())
        milestones.reach("worker called")
        context = ray.train.get_context()
        group = Distributed(ray.train.torch.get_device())
        set_threads(self.job.config.runtime, context.get_local_world_size())
        coordinator = RemoteCoordinator(self.coordinator)
        with logs.forwarded(coordinator.note, group.rank):
            return self._train(group, coordinator)

    def _train(self, group: Distributed, coordinator: RemoteCoordinator) -> Status:
        milestones = self.job.milestones
        # Rank 0 decides for all whether and where to start: a second look at the storage could find another checkpoint.
        told: list[Any] = [None, None, None]
        if group.rank == 0:
            start = self.job.start()
            refusal = ray.get(self.coordinator.begin_attempt.remote(self.job.first_step(start)))
            told = [refusal, uuid.uuid4().hex, start]
        torch.distributed.broadcast_object_list(told)
        refused, name, start = told
        milestones.reach("workers agreed")
        if refused:
            return Status("failed", 0, 0, refused)  # the driver knows where
        planner = self.job.planner
        source = RaySource(
            ray.train.get_dataset_shard("clips"),
            planner,
            self.job.reader.crop_samples,
            group.rank,
            group.world,
            coordinator.set_segment,
        )
        clusterer: Clusterer = self.job.given_labels
        if self.assignment is not None:
            clusterer = RayClusterer(self.assignment, name, group.world)
        device = ray.train.torch.get_device()
        worker = Worker(group, device, planner, source, clusterer, coordinator, milestones, leaving_nodes)
        return self.job.train(worker, start)


def leaving_nodes() -> Sequence[str]:
    """Nodes of this worker group that are being drained, as by a spot notice; all its workers must call it together."""
    info = ray.train.get_preemption_info()
    return info.preempted_node_ids if info else ()
