"""Settings of the stages that train: pre-training and distillation."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from unfused_ray.config.audio import AugmentConfig, CropConfig, FrontEndConfig
from unfused_ray.config.base import Config, NonNegativeFloat, PositiveFloat, PositiveInt, Probability, Seed
from unfused_ray.config.methods import DecarConfig, PretrainMethodConfig, PseudoLabelConfig, UnfusedConfig
from unfused_ray.config.model import Cut, EncoderConfig


class OptimizerConfig(Config):
    """Optimiser and learning-rate schedule: linear warm-up, then cosine to ``final_lr``."""

    name: Literal["sgd", "adamw"] = "adamw"
    """SGD with momentum, or AdamW with betas (0.9, 0.999)."""
    lr: PositiveFloat = 3e-4
    """Peak learning rate, as it is: it is never rescaled by the batch or the workers."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of sgd."""
    weight_decay: NonNegativeFloat = 1e-4
    """Coupled for sgd, decoupled for adamw; never on biases and batch-norm parameters."""
    warmup_epochs: NonNegativeFloat = 1.0
    """Epochs of linear warm-up from 0."""
    final_lr: Probability = 0.0
    """Learning rate at the end, as a share of the peak."""


class BatchConfig(Config):
    """How clips become batches. The loss and the gradient depend on these two numbers, never on the workers."""

    block: Annotated[int, Field(ge=2)] = 64
    """Clips of a block (b): the unit of batch-norm statistics, of mixing and of gradient accumulation."""
    blocks_per_step: PositiveInt = 2
    """Blocks of a global batch (G), shared by the workers: G must be a multiple of their number."""

    @property
    def clips_per_step(self) -> int:
        """Clips of a global batch."""
        return self.block * self.blocks_per_step


class RuntimeConfig(Config):
    """Where and on what a stage runs; a run may be resumed with other values, of all but ``precision`` and
    ``compile_backend``.

    What is computed stays the same. Its last bits do not: they depend on threads, workers and device.
    """

    kind: Literal["workers", "in-process"] = "workers"
    """A Ray Train worker group, or this process alone (first step seconds after the start)."""
    num_workers: PositiveInt = 1
    """Workers of the group; must divide blocks_per_step."""
    cpus_per_worker: NonNegativeFloat = 0.0
    """CPUs Ray reserves for a worker; 0 is 1, or 0.5 where cores are few. One whole CPU must stay free for Ray Data."""
    gpus_per_worker: NonNegativeFloat = 0.0
    """GPUs Ray reserves for a worker; 0 trains on CPUs."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Torch threads of a worker; 0 takes the node's cores divided by its workers. Resumes are bit-equal at equal
    threads."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto is bfloat16 on a GPU that has it, float32 elsewhere. It changes the result: a run keeps what it began with.
    """
    compile_backend: str = ""
    """Backend of torch.compile, such as inductor; empty computes operator by operator. The first step then takes a
    minute; inductor draws other dropout masks."""
    prefetch_blocks: PositiveInt = 8
    """Blocks a worker holds ready, across the end of an epoch."""


class CheckpointConfig(Config):
    """When the state of a run is written, and how much of it is kept."""

    every_minutes: PositiveFloat = 10.0
    """Longest time between checkpoints; the end of an epoch always writes one."""
    keep: PositiveInt = 2
    """Newest checkpoints kept. Assignments are kept while a kept checkpoint needs them, and of keep_assignments
    epochs."""
    keep_assignments: PositiveInt = 5
    """Newest epochs whose assignments (Parquet) are kept."""


class HealthConfig(Config):
    """What counts as a collapse at the end of an epoch, and what is then done; of fixed labels nothing is looked at."""

    min_effective_rank: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    """Directions that embeddings use at least (RankMe, arXiv 2210.02885); fewer are a collapse, 1 allows all."""
    max_cluster_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the clips that the largest cluster holds at most; more is a collapse, 1 allows all."""
    on_collapse: Literal["warn", "stop"] = "warn"
    """Say it and go on, or end after the epoch's checkpoint. Either is in the run's history and status."""


class TrackingConfig(Config):
    """Where parameters and curves go."""

    uri: str = ""
    """MLflow tracking URI; empty is the SQLite file <home>/mlflow.db (see output)."""
    experiment: str = "unfused-ray"
    """MLflow experiment."""


class TrainingConfig(Config):
    """What every stage that trains has: one or several prepared sources, an encoder, and how it is trained."""

    stage: ClassVar[str]
    """What the stage is called in a run's record."""
    export: ClassVar[str]
    """Folder in the run that the trained network is exported to."""

    data: tuple[str, ...] = ()
    """Folders written by jobs/prepare.py, by path or URI; several make one run."""
    splits: tuple[str, ...] = ("", "train")
    """Splits to train on: never validation or test. An empty name stands for the clips of no split."""
    output: str = ""
    """Folder the run is written to, by path or URI; empty is <home>/runs/<name>, where <home> is the environment
    variable UNFUSED_RAY_HOME or ~/unfused-ray."""
    name: str = "run"
    """Name of the run: tracking, and the default output folder."""
    seed: Seed = 0
    """Seed of everything random: weights, order, crops, augmentation, dropout, clustering."""
    epochs: PositiveInt = 20
    """Passes over the data."""
    stop_after: Annotated[int, Field(ge=0)] = 0
    """Export and stop after so many epochs, although the learning rate is that of a run of ``epochs``; 0 goes on to the
    end. Given again with a later one, the run goes on."""
    init_from: str = ""
    """Run or exported encoder whose weights to start from (warm start), on these data; empty is random weights. Of a
    run, those of its newest checkpoint as they were trained, not their average; a queue of keys begins empty."""
    fork: str = ""
    """Folder of another run: start from its newest checkpoint, at the start of that epoch, although settings differ."""
    front_end: FrontEndConfig = FrontEndConfig()
    crop: CropConfig = CropConfig()
    augment: AugmentConfig = AugmentConfig()
    encoder: EncoderConfig = EncoderConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    batch: BatchConfig = BatchConfig()
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Export the exponential moving average of the encoder's weights; 0 exports them as they are. The decay of the
    n-th step is (1 + n) / (10 + n) until it reaches this one, so that a short run's beginning is forgotten too."""
    runtime: RuntimeConfig = RuntimeConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    health: HealthConfig = HealthConfig()
    tracking: TrackingConfig = TrackingConfig()

    @property
    def last_epoch(self) -> int:
        """Epochs after which this start of the run ends."""
        return min(self.stop_after or self.epochs, self.epochs)

    @model_validator(mode="after")
    def _workers_divide_blocks(self) -> Self:
        workers = self.runtime.num_workers if self.runtime.kind == "workers" else 1
        if self.batch.blocks_per_step % workers:
            raise ValueError(
                f"batch.blocks_per_step={self.batch.blocks_per_step} must be a multiple of "
                f"runtime.num_workers={workers}: every worker takes the same number of blocks"
            )
        return self

    @model_validator(mode="after")
    def _encoder_can_halve(self) -> Self:
        shrink = 8  # AudioNTT2020 halves bands and frames three times
        if self.front_end.num_mels % shrink:
            raise ValueError(f"front_end.num_mels={self.front_end.num_mels} must be a multiple of {shrink}")
        samples = self.crop.num_samples(self.front_end.sample_rate)
        if self.front_end.num_frames(samples) < shrink:
            shortest = (shrink - 1) * self.front_end.hop / self.front_end.sample_rate
            raise ValueError(f"crop.seconds={self.crop.seconds:g} must be at least {shortest:g}: {shrink} frames")
        return self


class PretrainConfig(TrainingConfig):
    """Pre-training of an encoder without labels: DECAR-v2, or a method that it is compared with."""

    stage = "pretrain"
    export = "encoder"

    name: str = "decar-v2"
    """Name of the run: tracking, and the default output folder."""
    epochs: PositiveInt = 90
    """Passes over the data."""
    method: PretrainMethodConfig = DecarConfig()


class DistillConfig(TrainingConfig):
    """UnFuSeD: a student distilled on a task's own clips, without their labels, from a pre-trained encoder's clusters.

    Several sources are distilled jointly: one clustering of all their clips, one student.
    """

    stage = "distill"
    export = "student"

    name: str = "unfused"
    """Name of the run: tracking, and the default output folder."""
    teacher: str = ""
    """Pre-training run or exported encoder whose clusters are the pseudo-labels. Its weights are not trained on."""
    labels_of: str = ""
    """Another distillation on the same clips whose pseudo-labels to take over, made with the same settings; empty makes
    them anew."""
    labels: PseudoLabelConfig = PseudoLabelConfig()
    method: UnfusedConfig = UnfusedConfig()

    @model_validator(mode="after")
    def _student_is_a_part(self) -> Self:
        layers = get_args(Cut)
        if layers.index(self.method.cut) > layers.index(self.encoder.cut):
            raise ValueError(
                f"method.cut={self.method.cut} must not lie behind encoder.cut={self.encoder.cut}: the student is the "
                "beginning of the network"
            )
        return self
