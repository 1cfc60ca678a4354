"""Settings of the training stages: pre-training and distillation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from unfused_ray.config.audio import AugmentConfig, CropConfig, FrontEndConfig
from unfused_ray.config.base import Config, NonNegativeFloat, PositiveFloat, PositiveInt, Probability, Seed
from unfused_ray.config.methods import DecarConfig, PretrainMethodConfig, PseudoLabelConfig, UnfusedConfig
from unfused_ray.config.model import Cut, EncoderConfig
from unfused_ray.config.watch import WatchConfig


class OptimizerConfig(Config):
    """Optimiser and learning-rate schedule: linear warm-up, then cosine to ``final_lr``."""

    name: Literal["sgd", "adamw"] = "adamw"
    """Optimiser: SGD with momentum, or AdamW with betas (0.9, 0.999)."""
    lr: PositiveFloat = 3e-4
    """Peak learning rate; it is not rescaled with the batch size or the number of workers."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD; AdamW does not use it."""
    weight_decay: NonNegativeFloat = 1e-4
    """Weight decay, coupled for sgd and decoupled for adamw; biases and batch-norm parameters are exempt."""
    warmup_epochs: NonNegativeFloat = 1.0
    """Number of epochs of linear warm-up from 0; fractions are allowed."""
    final_lr: Probability = 0.0
    """Learning rate that the cosine falls to, as a share of the peak; the last step is the one before this value."""

    @property
    def idle(self) -> Mapping[str, str]:
        """Fields that have no effect."""
        return {"momentum": "with name=adamw, which has none"} if self.name == "adamw" else {}


class BatchConfig(Config):
    """Size of a batch. Loss and gradient depend on these two numbers, never on the number of workers."""

    block: Annotated[int, Field(ge=2)] = 64
    """Number of clips in a block (b), the unit of batch-norm statistics, mixing and gradient accumulation."""
    blocks_per_step: PositiveInt = 2
    """Number of blocks in a global batch (G); the workers share them equally."""

    @property
    def clips_per_step(self) -> int:
        """Number of clips in a global batch."""
        return self.block * self.blocks_per_step


class RuntimeConfig(Config):
    """Processes and devices of a training.

    A run may be resumed with other values of all fields but ``precision`` and ``compile_backend``. Its result then
    differs only in the last bits, which depend on threads, workers and device. It differs in more bits if
    ``compress_gradients`` changes, or between a CPU and a GPU whose convolutions round to TF32.
    """

    kind: Literal["workers", "in-process"] = "workers"
    """Where to train: in a Ray Train worker group, or in this process, which starts within seconds."""
    num_workers: PositiveInt = 1
    """Number of workers; it must divide blocks_per_step."""
    cpus_per_worker: NonNegativeFloat = 0.0
    """Number of CPUs that Ray reserves for each worker; 0 reserves 1, or 0.5 if the cluster has too few. One whole CPU
    stays free for Ray Data."""
    gpus_per_worker: NonNegativeFloat = 0.0
    """Number of GPUs that Ray reserves for each worker; 0 trains worker groups on CPUs. With several workers, each
    needs more than 0.5, because NCCL refuses two on one GPU. With kind in-process, the training uses a GPU that torch
    sees, whatever this value is (CUDA_VISIBLE_DEVICES= hides it)."""
    estimate_for: Literal["", "H100", "A100", "L4", "A10G"] = ""
    """GPU for which a dry run estimates clips/s, from the card's data sheet; empty estimates none. A training ignores
    it."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Number of torch threads of each worker; 0 divides the cores that a node's workers may use among them. A resume is
    bit-equal only with equal threads."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the network; auto is bfloat16 on a GPU or a processor that has instructions for it (AVX512-BF16,
    AMX), float32 elsewhere. A run keeps the format it began with."""
    deterministic: bool = False
    """Use only GPU algorithms that repeat their results bit by bit, so that a resume on the same GPUs is bit-equal, as
    it is on CPUs with equal threads. This is slower, and refused if an operation has no such algorithm. It has not been
    tried on a GPU yet."""
    compress_gradients: bool = False
    """Send gradients between workers in bfloat16, which halves the bytes; meant for workers on several nodes. Each
    worker's part is rounded by up to 0.4 %."""
    compile_backend: str = ""
    """Backend of torch.compile; empty does not compile. inductor takes a minute for the first step and draws other
    dropout masks. cudagraphs lets a GPU repeat its kernels without the host, and gives the reason if it cannot; it has
    not been tried on a GPU yet."""
    prefetch_blocks: PositiveInt = 8
    """Smallest number of blocks that a worker reads ahead, also into the next epoch."""
    prefetch_seconds: NonNegativeFloat = 0.5
    """Seconds of training that a worker reads ahead if these are more blocks than prefetch_blocks, up to 256 blocks. A
    fast GPU then does not wait while Ray Data begins its next execution, which takes up to 0.3 s."""

    @property
    def idle(self) -> Mapping[str, str]:
        """Fields that have no effect."""
        alone = "with num_workers=1, which sends no gradients, and would only round them"
        return {"compress_gradients": alone} if self.num_workers == 1 else {}

    # No validator: the record of a run that failed because of it must stay readable.
    @property
    def shares_gpus(self) -> bool:
        """True if Ray may put several workers of a group on one GPU, which NCCL refuses."""
        return self.kind == "workers" and self.num_workers > 1 and 0 < self.gpus_per_worker <= 0.5


class CheckpointConfig(Config):
    """Intervals of checkpoints, and the number that is kept."""

    every_minutes: PositiveFloat = 10.0
    """Longest time between checkpoints, in minutes."""
    min_minutes: NonNegativeFloat = 0.0
    """Shortest time between checkpoints, in minutes: an epoch that ends sooner after the last checkpoint writes none,
    unless the run ends with it. 0 writes one at the end of every epoch."""
    keep: PositiveInt = 2
    """Number of newest checkpoints that are kept, with the assignments they need."""
    keep_assignments: PositiveInt = 5
    """Number of newest epochs whose assignments (Parquet) are kept."""
    pictures_every_minutes: NonNegativeFloat = 10.0
    """Shortest time between two drawings of curves and clusters while a run trains, in minutes; a drawing also waits
    for a hundred times the duration of the last one. 0 draws them only at the end."""


class HealthConfig(Config):
    """Signs of a collapse at the end of an epoch, and the reaction to them; with fixed labels none are looked for."""

    min_effective_rank: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    """Effective rank of the embeddings (RankMe, arXiv 2210.02885) below which they count as collapsed; 1 allows all."""
    max_cluster_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the clips in one cluster above which the clusters count as collapsed; 1 allows all."""
    on_collapse: Literal["warn", "stop"] = "warn"
    """Reaction to a collapse: warn and continue, or stop after the epoch's checkpoint. History and status record it
    either way."""


class TrackingConfig(Config):
    """The MLflow server that parameters and metrics are sent to."""

    uri: str = ""
    """MLflow tracking URI; empty takes the environment variable MLFLOW_TRACKING_URI or, if that is not set, the SQLite
    file <home>/mlflow.db, where <home> is the environment variable UNFUSED_RAY_HOME or ~/unfused-ray. "off" tracks
    nothing; empty does so too if MLflow is not installed."""
    experiment: str = ""
    """MLflow experiment; empty takes the environment variable MLFLOW_EXPERIMENT_NAME or, if that is not set,
    unfused-ray."""


class TrainingConfig(Config):
    """Settings that pre-training and distillation share: prepared sources, an encoder, and its training."""

    stage: ClassVar[str]
    """Name of the stage in a run's record."""
    export: ClassVar[str]
    """Folder of the run that the trained network is exported to."""
    inputs: ClassVar[tuple[str, ...]] = ("data", "init_from", "fork")
    outputs = ("output",)

    data: tuple[str, ...] = ()
    """Prepared sources to train on together, by path or URI."""
    splits: tuple[str, ...] = ("", "train")
    """Splits to train on, never validation or test. An empty name means clips without a split."""
    output: str = ""
    """Folder to write the run to, by path or URI; empty is <home>/runs/<name>, where <home> is the environment variable
    UNFUSED_RAY_HOME or ~/unfused-ray."""
    name: str = "run"
    """Name of the run in tracking, and of its default folder."""
    seed: Seed = 0
    """Seed of weights, order, crops, augmentation, dropout and clustering."""
    epochs: PositiveInt = 20
    """Number of passes over the data."""
    stop_after: Annotated[int, Field(ge=0)] = 0
    """Stop and export after this many epochs, while the schedule still spans ``epochs``; 0 trains to the end. A larger
    value resumes the run."""
    init_from: str = ""
    """Run or exported encoder whose weights to start from (warm start), by path or URI; empty starts from random
    weights. A run gives the weights of its newest checkpoint, not their average; a queue of keys begins empty."""
    fork: str = ""
    """Run to fork, by path or URI: continue from its newest checkpoint with other settings, from the start of that
    epoch. Empty does not fork."""
    front_end: FrontEndConfig = FrontEndConfig()
    crop: CropConfig = CropConfig()
    augment: AugmentConfig = AugmentConfig()
    encoder: EncoderConfig = EncoderConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    batch: BatchConfig = BatchConfig()
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the exponential moving average of the weights, which is exported; 0 exports the weights themselves. The
    decay of the n-th step is (1 + n) / (10 + n) until it reaches this value, so that short runs forget their beginning
    too."""
    runtime: RuntimeConfig = RuntimeConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    health: HealthConfig = HealthConfig()
    watch: WatchConfig = WatchConfig()
    tracking: TrackingConfig = TrackingConfig()

    @property
    def idle(self) -> Mapping[str, str]:
        """Fields that have no effect."""
        return {"init_from": f"with fork={self.fork}, whose weights are taken"} if self.fork else {}

    @property
    def last_epoch(self) -> int:
        """Number of epochs after which the run ends or stops."""
        return min(self.stop_after or self.epochs, self.epochs)

    @property
    def ends_by(self) -> Literal["stop_after", "epochs"]:
        """Name of the field that gives :attr:`last_epoch`."""
        return "stop_after" if 0 < self.stop_after < self.epochs else "epochs"

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
    """Pre-training of an encoder without labels, by DECAR-v2 or a method that it is compared with."""

    stage = "pretrain"
    export = "encoder"

    name: str = "decar-v2"
    """Name of the run in tracking, and of its default folder."""
    epochs: PositiveInt = 90
    """Number of passes over the data."""
    method: PretrainMethodConfig = DecarConfig()

    @property
    def idle(self) -> Mapping[str, str]:
        """Fields that have no effect."""
        if isinstance(self.method, DecarConfig):
            return super().idle
        why = f"with method.kind={self.method.kind}, which makes no pseudo-labels"
        return {**super().idle, "health.max_cluster_share": why, "checkpoint.keep_assignments": why}


class DistillConfig(TrainingConfig):
    """UnFuSeD: distillation of a student on a task's clips, with the clusters of a pre-trained encoder as labels.

    Several sources are distilled jointly: one clustering of all their clips, one student.
    """

    stage = "distill"
    export = "student"
    inputs = (*TrainingConfig.inputs, "teacher", "labels_of")

    name: str = "unfused"
    """Name of the run in tracking, and of its default folder."""
    teacher: str = ""
    """Pre-training run or exported encoder whose clusters are the pseudo-labels, by path or URI; the student does not
    start from its weights."""
    labels_of: str = ""
    """Distillation with the same clips and label settings whose pseudo-labels to reuse, by path or URI; empty makes
    them."""
    labels: PseudoLabelConfig = PseudoLabelConfig()
    method: UnfusedConfig = UnfusedConfig()

    @property
    def idle(self) -> Mapping[str, str]:
        """Fields that have no effect."""
        fixed = "in a distillation, which is not checked for collapse, because its labels are fixed"
        found = {**super().idle, **{f"health.{name}": fixed for name in HealthConfig.model_fields}}
        found["checkpoint.keep_assignments"] = "in a distillation, whose labels are made once"
        if self.labels.origin in ("random", "true"):
            found["teacher"] = f"with labels.origin={self.labels.origin}, which uses no teacher"
        if self.method.num_views == 1:
            found["crop.num_crops"] = "with method.num_views=1, which uses the first crop alone"
        return found

    @model_validator(mode="after")
    def _student_is_a_part(self) -> Self:
        layers = get_args(Cut)
        if layers.index(self.method.cut) > layers.index(self.encoder.cut):
            raise ValueError(
                f"method.cut={self.method.cut} must not come after encoder.cut={self.encoder.cut}: the student is the "
                "beginning of the network"
            )
        return self
