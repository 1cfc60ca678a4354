"""A training as its workers receive it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from unfused_ray import storage
from unfused_ray.audio.transfer import pinned
from unfused_ray.clustering.assignment import read_assignment
from unfused_ray.clustering.clusterer import Clusterer, ClusteringPlan
from unfused_ray.config import TrainingConfig
from unfused_ray.data.shards.format import Statistics
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.data.stream.plan import Planner
from unfused_ray.data.stream.prefetch import Prefetcher
from unfused_ray.data.stream.read import Block, BlockReader
from unfused_ray.labels.clustered import Clustered
from unfused_ray.labels.fixed import Fixed
from unfused_ray.labels.source import LabelSource
from unfused_ray.methods.method import Method
from unfused_ray.runs.resume import ResumePoint
from unfused_ray.runs.run import ASSIGNMENTS
from unfused_ray.runs.start_times import StartTimes
from unfused_ray.runs.status import Status
from unfused_ray.training.stages import stage_of
from unfused_ray.training.stages.stage import Stage
from unfused_ray.training.worker.device import chosen_kernels
from unfused_ray.training.worker.loop import Loop, Worker, passes_left


@dataclass(frozen=True)
class TrainingJob:
    """A run's settings, data and beginning: only values, so that it can be sent to any process."""

    config: TrainingConfig
    run_uri: str
    index: ClipIndex
    statistics: Statistics
    initial_weights: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Weights of a warm start by module of the method, with the key '' for the whole method; random weights if
    empty."""
    resume_point: ResumePoint | None = None
    """Found by the driver. A worker group that is started again looks for a newer one."""
    start_times: StartTimes = field(default_factory=StartTimes)

    @property
    def stage(self) -> Stage:
        """The stage of the run."""
        return stage_of(self.config)

    @property
    def planner(self) -> Planner:
        """The plan of the run's passes."""
        return Planner(self.index, self.config.seed, self.config.batch)

    @property
    def reader(self) -> BlockReader:
        """The reader that carries out the plan."""
        crop = self.config.crop
        samples = crop.num_samples(self.config.front_end.sample_rate)
        return BlockReader(self.config.seed, self.config.batch.block, crop, samples)

    def clustering_plan(self, threads: int = 0) -> ClusteringPlan | None:
        """Return the plan of the clustering before each epoch; None if nothing is clustered.

        Args:
            threads: threads of each process that holds embeddings; 0 takes all cores that it may use on its node.
        """
        request = self.stage.clustering
        if request is None:
            return None
        return ClusteringPlan(
            num_clips=self.index.num_clips,
            dim=request.dim,
            num_clusters=request.num_clusters,
            iterations=request.iterations,
            seed=self.config.seed,
            assignments=storage.join(self.run_uri, ASSIGNMENTS),
            threads=threads,
            gpus_per_shard=request.gpus_per_shard,
        )

    def labels(self, clusterer: Clusterer | None, rank: int = 0) -> LabelSource | None:
        """Return the run's labels for one worker; None if the method has none.

        Args:
            clusterer: carries out the :meth:`clustering_plan`; None if there is none.
            rank: rank of the worker.
        """
        request, folder = self.stage.clustering, self.stage.labels_folder(self.run_uri)
        if request is not None and clusterer is not None:
            return Clustered(request, clusterer, rank)
        return Fixed(folder) if folder else None

    def build_method(self) -> Method:
        """Return the method with the weights that the run begins with."""
        folder = self.stage.labels_folder(self.run_uri)
        if folder:
            num_classes = [len(prototypes) for prototypes in read_assignment(folder).prototypes]
        else:
            num_classes = list(self.stage.num_classes(self.index))
        torch.manual_seed(self.stage.seed_of_weights)
        method = self.stage.build_method(num_classes)
        for name, tensors in self.initial_weights.items():
            if name == "encoder":
                method.load_encoder(tensors)
            else:
                method.load_all(tensors)
        return method

    def train(self, worker: Worker, resume_point: ResumePoint | None) -> Status:
        """Train on one worker.

        Raises:
            RuntimeError: out of memory; names the settings that determine the memory.
            Exception: any other failure.
        """
        passes = list(passes_left(self.config.last_epoch, worker.labels, resume_point))
        # Opened before the loop, so that the first blocks are read while it is built, which takes torch a second or
        # two.
        ahead = self.config.runtime.prefetch_blocks, self.config.runtime.prefetch_seconds
        pin = partial(_pinned_block, worker.device)
        loop: Loop | None = None
        with (
            chosen_kernels(self.config.runtime, worker.device),
            closing(Prefetcher(worker.source, passes, *ahead, pin)) as prefetcher,
        ):
            try:
                loop = Loop(self.config, self.run_uri, self.statistics, self.build_method(), worker, resume_point)
                self.start_times.reach("loop built")
                return loop.run(prefetcher)
            except Exception as error:
                worker.coordinator.failed_at(loop.steps_done if loop else self.first_step(resume_point))
                if not isinstance(error, torch.OutOfMemoryError):
                    raise
                batch = self.config.batch
                raise RuntimeError(
                    f"out of memory on {worker.device} with batch.block={batch.block} (b) and "
                    f"batch.blocks_per_step={batch.blocks_per_step} (G): the memory of a step grows with b alone; "
                    "lower batch.block and raise batch.blocks_per_step"
                ) from error

    def first_step(self, resume_point: ResumePoint | None) -> int:
        """Return the number of global batches done at a resume point."""
        return resume_point.position.steps(self.planner.num_steps("train")) if resume_point else 0


def _pinned_block(device: torch.device, block: Block) -> Block:
    """Return a block whose waves lie in memory that a GPU reads by itself."""
    return replace(block, waves=pinned(block.waves, device))
