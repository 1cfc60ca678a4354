"""Settings of the stages that train: pre-training and distillation."""

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
    """SGD with momentum, or AdamW with betas (0.9, 0.999)."""
    lr: PositiveFloat = 3e-4
    """Peak learning rate; it is never rescaled by batch size or workers."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    weight_decay: NonNegativeFloat = 1e-4
    """Weight decay, coupled for sgd and decoupled for adamw; biases and batch-norm parameters have none."""
    warmup_epochs: NonNegativeFloat = 1.0
    """Epochs of linear warm-up from 0."""
    final_lr: Probability = 0.0
    """Learning rate that the cosine falls to, as a share of the peak; the last step is one before it."""

    @property
    def idle(self) -> Mapping[str, str]:
        """Fields that do not count."""
        return {"momentum": "with name=adamw, which has none"} if self.name == "adamw" else {}


class BatchConfig(Config):
    """Size of a batch. Loss and gradient depend on these two numbers, never on the number of workers."""

    block: Annotated[int, Field(ge=2)] = 64
    """Clips of a block (b), the unit of batch-norm statistics, mixing and gradient accumulation."""
    blocks_per_step: PositiveInt = 2
    """Blocks of a global batch (G), shared equally by the workers."""

    @property
    def clips_per_step(self) -> int:
        """Clips of a global batch."""
        return self.block * self.blocks_per_step


class RuntimeConfig(Config):
    """Processes and devices of a training.

    A run may be resumed with other values of all but ``precision`` and ``compile_backend``. Its result then differs in
    the last bits only, which depend on threads, workers and device; in more of them with other ``compress_gradients``,
    or between a CPU and a GPU whose convolutions round to TF32.
    """

    kind: Literal["workers", "in-process"] = "workers"
    """Train in a Ray Train worker group, or in this process, which starts within seconds."""
    num_workers: PositiveInt = 1
    """Number of workers; it must divide blocks_per_step."""
    cpus_per_worker: NonNegativeFloat = 0.0
    """CPUs that Ray reserves for a worker; 0 is 1, or 0.5 where cores are few. One whole CPU stays free for Ray
    Data."""
    gpus_per_worker: NonNegativeFloat = 0.0
    """GPUs that Ray reserves for a worker; 0 trains worker groups on CPUs. Several workers need more than 0.5 each:
    NCCL refuses two on one GPU. A training in one process takes a GPU that torch sees (CUDA_VISIBLE_DEVICES= hides
    it)."""
    estimate_for: Literal["", "H100", "A100", "L4", "A10G"] = ""
    """GPU that a dry run estimates clips/s for, from the card's data sheet; a training takes no notice of it."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Torch threads of a worker; 0 divides the cores that a node's workers may use among them. A resume is bit-equal
    with equal threads."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the network; auto is bfloat16 on a GPU or a processor (AVX512-BF16, AMX) with instructions for
    it, float32 elsewhere. A run keeps the one it began with."""
    deterministic: bool = False
    """Take only algorithms on GPUs that give the same bits again, so that a resume on the same GPUs is bit-equal, as it
    is on CPUs with equal threads; slower, and refused where an operation has none. No GPU has shown it yet."""
    compress_gradients: bool = False
    """Send gradients between workers in bfloat16: half the bytes, for workers on several nodes. Each worker's part is
    rounded by up to 0.4 %."""
    compile_backend: str = ""
    """Backend of torch.compile; empty does not compile. inductor takes a minute for the first step, and draws other
    dropout masks. cudagraphs has a GPU repeat its kernels without the host, and says why where it cannot; no GPU has
    tried it yet."""
    prefetch_blocks: PositiveInt = 8
    """Blocks that a worker reads ahead at least, also into the next epoch."""
    prefetch_seconds: NonNegativeFloat = 0.5
    """Seconds of training that it reads ahead, where these are more blocks: 256 at most. A fast GPU then does not wait
    while Ray Data begins its next execution, which takes up to 0.3 s."""

    # No validator: a run that has failed by it must stay readable.
    @property
    def shares_gpus(self) -> bool:
        """True if Ray may put several workers of a group on one GPU, which NCCL refuses."""
        return self.kind == "workers" and self.num_workers > 1 and 0 < self.gpus_per_worker <= 0.5


class CheckpointConfig(Config):
    """Intervals of checkpoints, and the number that is kept."""

    every_minutes: PositiveFloat = 10.0
    """Longest time between checkpoints, in minutes."""
    min_minutes: NonNegativeFloat = 0.0
    """Shortest time between them, in minutes: an epoch that ends sooner after the last one writes none, unless the run
    ends with it. 0 writes one at the end of every epoch."""
    keep: PositiveInt = 2
    """Number of newest checkpoints that are kept, with the assignments they need."""
    keep_assignments: PositiveInt = 5
    """Number of newest epochs whose assignments (Parquet) are kept."""
    pictures_every_minutes: NonNegativeFloat = 10.0
    """Shortest time between two drawings of curves and clusters while a run trains, in minutes, at least a hundred
    times what a drawing takes; 0 draws them at its end alone."""


class HealthConfig(Config):
    """Signs of a collapse at the end of an epoch, and what follows; with fixed labels none are looked for."""

    min_effective_rank: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    """Lowest effective rank of the embeddings (RankMe, arXiv 2210.02885) that is no collapse; 1 allows all."""
    max_cluster_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Largest share of the clips in one cluster that is no collapse; 1 allows all."""
    on_collapse: Literal["warn", "stop"] = "warn"
    """Warn and go on, or stop after the epoch's checkpoint. History and status record it either way."""


class TrackingConfig(Config):
    """The MLflow server that parameters and metrics are sent to."""

    uri: str = ""
    """MLflow tracking URI; empty is that of the environment variable MLFLOW_TRACKING_URI, or else the SQLite file
    <home>/mlflow.db, where <home> is the environment variable UNFUSED_RAY_HOME or ~/unfused-ray. "off" tracks nothing,
    as does empty where MLflow is not installed."""
    experiment: str = ""
    """MLflow experiment; empty is that of the environment variable MLFLOW_EXPERIMENT_NAME, or else unfused-ray."""


class TrainingConfig(Config):
    """Settings that pre-training and distillation share: prepared sources, an encoder, and how it is trained."""

    stage: ClassVar[str]
    """Name of the stage in a run's record."""
    export: ClassVar[str]
    """Folder in the run that the trained network is exported to."""
    inputs: ClassVar[tuple[str, ...]] = ("data", "init_from", "fork")
    outputs = ("output",)

    data: tuple[str, ...] = ()
    """Prepared sources, by path or URI; several are trained on together."""
    splits: tuple[str, ...] = ("", "train")
    """Splits to train on, never validation or test. An empty name means clips without a split."""
    output: str = ""
    """Folder the run is written to, by path or URI; empty is <home>/runs/<name>, where <home> is the environment
    variable UNFUSED_RAY_HOME or ~/unfused-ray."""
    name: str = "run"
    """Name of the run in tracking and in its default folder."""
    seed: Seed = 0
    """Seed of weights, order, crops, augmentation, dropout and clustering."""
    epochs: PositiveInt = 20
    """Passes over the data."""
    stop_after: Annotated[int, Field(ge=0)] = 0
    """Stop and export after this many epochs, while the schedule still spans ``epochs``; 0 trains to the end. The run
    resumes with a later value."""
    init_from: str = ""
    """Run or exported encoder whose weights to start from (warm start); empty is random weights. A run gives those of
    its newest checkpoint, not their average; a queue of keys begins empty."""
    fork: str = ""
    """Run whose newest checkpoint to continue from with other settings, from the start of its epoch."""
    front_end: FrontEndConfig = FrontEndConfig()
    crop: CropConfig = CropConfig()
    augment: AugmentConfig = AugmentConfig()
    encoder: EncoderConfig = EncoderConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    batch: BatchConfig = BatchConfig()
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the exponential moving average of weights that is exported; 0 exports the weights themselves. The decay
    of the n-th step is (1 + n) / (10 + n) until it reaches this one, so that short runs forget their beginning too."""
    runtime: RuntimeConfig = RuntimeConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    health: HealthConfig = HealthConfig()
    watch: WatchConfig = WatchConfig()
    tracking: TrackingConfig = TrackingConfig()

    @property
    def idle(self) -> Mapping[str, str]:
        """Fields that do not count."""
        return {"init_from": f"with fork={self.fork}, whose weights are taken"} if self.fork else {}

    @property
    def last_epoch(self) -> int:
        """Epochs after which the run ends or stops."""
        return min(self.stop_after or self.epochs, self.epochs)

    @property
    def ends_by(self) -> Literal["stop_after", "epochs"]:
        """The field that :attr:`last_epoch` is of."""
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
    """Name of the run in tracking and in its default folder."""
    epochs: PositiveInt = 90
    """Passes over the data."""
    method: PretrainMethodConfig = DecarConfig()


class DistillConfig(TrainingConfig):
    """UnFuSeD: distillation of a student on a task's clips, from a pre-trained encoder's clusters instead of labels.

    Several sources are distilled jointly: one clustering of all their clips, one student.
    """

    stage = "distill"
    export = "student"
    inputs = (*TrainingConfig.inputs, "teacher", "labels_of")

    name: str = "unfused"
    """Name of the run in tracking and in its default folder."""
    teacher: str = ""
    """Pre-training run or exported encoder whose clusters are the pseudo-labels; the student does not start from it."""
    labels_of: str = ""
    """Distillation with the same clips and label settings whose pseudo-labels to reuse; empty makes them."""
    labels: PseudoLabelConfig = PseudoLabelConfig()
    method: UnfusedConfig = UnfusedConfig()

    @property
    def idle(self) -> Mapping[str, str]:
        """Fields that do not count."""
        fixed = "in a distillation, which is not checked for collapse, because its labels are fixed"
        found = {**super().idle, **{f"health.{name}": fixed for name in HealthConfig.model_fields}}
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
