"""Typed, validated configuration of every stage.

A configuration is a tree of frozen models. Unknown names, wrong types and impossible values are refused before any
work starts, with the field, the value and the rule. The docstring under a field is its help text on the command line.
Named configurations (the paper's numbers) live in ``recipes.py``.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Config(BaseModel):
    """Base of all configurations: immutable, no unknown fields, defaults checked like given values."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    def digest(self) -> str:
        """Sixteen hex digits that identify the values of this configuration."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class FrontEndConfig(Config):
    """From waveform to log-mel spectrogram (BYOL-A, arXiv 2103.06695 sec. IV; settings as in the LAPE code)."""

    sample_rate: Annotated[int, Field(ge=1000, le=192_000)] = 16_000
    """Samples per second of the shards and of everything after them."""
    n_fft: Annotated[int, Field(ge=16)] = 1024
    """Length of the Fourier transform and of its Hann window, in samples."""
    hop: PositiveInt = 160
    """Samples from one frame to the next."""
    num_mels: PositiveInt = 64
    """Mel bands, on the Slaney scale with Slaney normalisation (librosa's)."""
    f_min: NonNegativeFloat = 60.0
    """Lower edge of the lowest band, in Hz."""
    f_max: PositiveFloat = 7800.0
    """Upper edge of the highest band, in Hz."""
    floor: PositiveFloat = 1.2e-7
    """Smallest power before the natural logarithm; it decides what digital silence looks like."""

    @model_validator(mode="after")
    def _bands_fit(self) -> Self:
        if not self.f_min < self.f_max <= self.sample_rate / 2:
            raise ValueError(
                f"f_min={self.f_min:g} Hz and f_max={self.f_max:g} Hz must satisfy f_min < f_max <= sample_rate/2 "
                f"= {self.sample_rate / 2:g} Hz"
            )
        if self.hop > self.n_fft:
            raise ValueError(f"hop={self.hop} must not exceed n_fft={self.n_fft}: samples would be skipped")
        return self

    def num_frames(self, num_samples: int) -> int:
        """Frames of a centred spectrogram of ``num_samples`` samples."""
        return num_samples // self.hop + 1


class CropConfig(Config):
    """What part of a clip a training view sees."""

    seconds: PositiveFloat = 0.95
    """Length of a crop. A longer clip is cut at a random position."""
    short_clips: Literal["centre", "tile"] = "tile"
    """A clip shorter than the crop is repeated to fill it, or centred in silence (the sources' rule). Silence would be
    heard as the clip's length; one rule for training and evaluation (docs/log.md)."""
    num_crops: Annotated[int, Field(ge=1, le=2)] = 1
    """Crops per clip: 1 is augmented once per view (BYOL-A), 2 gives each view a crop of its own (COLA)."""

    def num_samples(self, sample_rate: int) -> int:
        """Length of a crop in samples."""
        return round(self.seconds * sample_rate)


class AugmentConfig(Config):
    """One augmented view of a normalised log-mel (BYOL-A, arXiv 2103.06695 sec. III-B, in this order)."""

    mixup: Annotated[float, Field(ge=0, lt=1)] = 0.4
    """Log-mixup-exp: mixing share λ ~ U(0, mixup) of another clip of the block (0.4 in BYOL-A v1 and LAPE); 0 is
    off."""
    k_mix: Annotated[int, Field(ge=0)] = 0
    """Clusters of the block's clips by their mean log-mel, of which the one farthest from a clip's own gives the clip
    it is mixed with (k-mix, SLICER: 4); 0 mixes with any."""
    virtual_crop: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.5)
    """Random resize crop: size of the virtual canvas relative to the input, in frequency and in time."""
    freq_scale: tuple[PositiveFloat, PositiveFloat] = (0.6, 1.5)
    """Random resize crop: range of the crop's height relative to the input's."""
    time_scale: tuple[PositiveFloat, PositiveFloat] = (0.6, 1.5)
    """Random resize crop: range of the crop's width relative to the input's."""
    fader: NonNegativeFloat = 0.0
    """Random linear fader (BYOL-A v2): gain at either end ~ U(-fader, fader), in normalised units; 0 is off."""

    @model_validator(mode="after")
    def _ranges_ordered(self) -> Self:
        for name in ("freq_scale", "time_scale"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}=({low:g}, {high:g}) must be (low, high) with low <= high")
        if min(self.virtual_crop) < 1:
            raise ValueError(f"virtual_crop={self.virtual_crop} must be at least 1 in both directions")
        if self.k_mix == 1:
            raise ValueError("k_mix=1 has no cluster to mix with but a clip's own: give 0 (off), or 2 and more")
        if self.k_mix and not self.mixup:
            raise ValueError(f"k_mix={self.k_mix} chooses what a clip is mixed with, but mixup=0 mixes nothing")
        return self


Cut = Literal["block1", "block2", "block3", "fc1", "fc2"]
"""A layer after which an AudioNTT2020 can end: a convolution block, or one of the two layers per frame."""


class EncoderConfig(Config):
    """AudioNTT2020 (arXiv 2103.06695 sec. IV-B): three convolution blocks, then two layers per frame."""

    channels: PositiveInt = 64
    """Channels of the three convolutions."""
    width: PositiveInt = 2048
    """Width of both fully connected layers, and so of the clip embedding."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Dropout after the first fully connected layer."""
    cut: Cut = "fc2"
    """Last layer of the network; fc2 is all of it."""


class DecarConfig(Config):
    """DECAR-v2: k-means pseudo-labels, prototypes set to the centroids (DeepCluster-v2, arXiv 2006.09882)."""

    shapes: ClassVar[tuple[str, ...]] = ("projection_hidden", "projection_dim")
    """Fields that decide the shapes of the method's weights."""

    kind: Literal["decar-v2"] = "decar-v2"
    """The method."""
    projection_hidden: PositiveInt = 2048
    """Hidden width of the projection head."""
    projection_dim: PositiveInt = 128
    """Size of the L2-normalised projection that is clustered and compared with the prototypes."""
    num_clusters: tuple[Annotated[int, Field(ge=2)], ...] = (512,)
    """Clusters of each head (DECAR: 512). Several numbers give several heads."""
    temperature: PositiveFloat = 0.1
    """Softmax temperature of projection · prototype."""
    kmeans_iterations: PositiveInt = 10
    """Lloyd iterations an epoch, from a fresh start."""
    labels_from: Literal["bank", "full_pass"] = "bank"
    """Cluster the embeddings computed while training in the epoch before, or those of a full pass each epoch."""
    bank_embedding: Literal["view0_clean", "mean_of_views"] = "view0_clean"
    """What the bank keeps: the first view's projection without dropout, or the mean of both views' as trained."""
    assignment_shards: PositiveInt = 1
    """Processes that hold the bank and share the k-means; one lives inside the assignment actor."""

    @model_validator(mode="after")
    def _has_heads(self) -> Self:
        if not self.num_clusters:
            raise ValueError("num_clusters=() must name at least one number of clusters")
        return self


class ColaConfig(Config):
    """COLA: two crops of a clip are a positive pair, those of other clips negatives (arXiv 2010.10915)."""

    shapes: ClassVar[tuple[str, ...]] = ("projection_dim",)

    kind: Literal["cola"] = "cola"
    """The method."""
    projection_dim: PositiveInt = 512
    """Size of the projection that is compared (sec. 3.1)."""


class DeloresSConfig(Config):
    """DeLoRes-S: cross-correlations of two views' features pulled towards the identity (arXiv 2203.13628).

    Loss: Σ_i (1 - C_ii)² + off_diagonal · Σ_i Σ_{j≠i} C_ij².
    """

    shapes: ClassVar[tuple[str, ...]] = ("decorrelation_dim",)

    kind: Literal["delores-s"] = "delores-s"
    """The method."""
    decorrelation_dim: PositiveInt = 2048
    """Width of the head's three layers, and so the number of features (2048 in the LAPE code)."""
    off_diagonal: NonNegativeFloat = 0.0051
    """Weight of redundancy reduction against invariance (0.0051 in Barlow Twins and the authors' first code; the LAPE
    code weighs both alike, 1 here)."""


class DeloresMConfig(Config):
    """DeLoRes-M: momentum contrast, and decorrelation after each block (doi 10.1109/JSTSP.2022.3202093).

    Loss: InfoNCE + Σ_l (on_diagonal · Σ_i (1 - C_ii)² + off_diagonal · Σ_i Σ_{j≠i} C_ij²), over the blocks l.
    """

    shapes: ClassVar[tuple[str, ...]] = ("projection_dim", "queue", "decorrelation_dim")

    kind: Literal["delores-m"] = "delores-m"
    """The method."""
    projection_dim: PositiveInt = 128
    """Size of the L2-normalised projection, of queries and keys."""
    queue: PositiveInt = 65_536
    """Past keys that are negatives (as in MoCo, arXiv 1911.05722)."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Share of itself that the key's encoder keeps at a step."""
    temperature: PositiveFloat = 0.07
    """Softmax temperature of query · key."""
    decorrelation_dim: PositiveInt = 2048
    """Width of the three layers of each block's head, and so the number of its features."""
    on_diagonal: NonNegativeFloat = 5e-5 / 32
    """Weight of invariance (5e-5 / 32 in the LAPE code, which leaves little but InfoNCE; 1 in the authors' older)."""
    off_diagonal: NonNegativeFloat = 5e-5 / 32
    """Weight of redundancy reduction (5e-5 / 32 in the LAPE code, 0.0051 in the authors' older)."""


class ByolAConfig(Config):
    """BYOL-A: predict what a following target network makes of another view (arXiv 2103.06695)."""

    shapes: ClassVar[tuple[str, ...]] = ("hidden", "projection_dim")

    kind: Literal["byol-a"] = "byol-a"
    """The method."""
    hidden: PositiveInt = 4096
    """Hidden width of projector and predictor."""
    projection_dim: PositiveInt = 256
    """Size of the projection, which is also the prediction's."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Share of itself that the target network keeps at a step."""


class SlicerConfig(Config):
    """SLICER: instance- and cluster-level contrast of a student, with a teacher's queue of keys (arXiv 2211.01519).

    Loss: both directions' InfoNCE + cluster contrast - entropy · (entropies of both views' cluster sizes).
    """

    shapes: ClassVar[tuple[str, ...]] = ("projection_dim", "num_clusters", "queue")

    kind: Literal["slicer"] = "slicer"
    """The method."""
    projection_dim: PositiveInt = 128
    """Size of the projection that tells clips apart."""
    num_clusters: Annotated[int, Field(ge=2)] = 128
    """Clusters of the soft assignment, learnt along with everything else."""
    queue: PositiveInt = 65_536
    """Keys of past batches that are the negatives, two a clip."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Share of itself that the teacher keeps at a step."""
    temperature: PositiveFloat = 0.07
    """Of the instance-level softmax."""
    cluster_temperature: PositiveFloat = 1.0
    """Of the cluster-level softmax."""
    entropy: NonNegativeFloat = 0.0
    """Weight of the cluster sizes' entropy, which keeps clusters from emptying (1 in arXiv 2009.09687, off in the LAPE
    code)."""


PretrainMethodConfig = Annotated[
    Annotated[DecarConfig, Tag("decar-v2")]
    | Annotated[ColaConfig, Tag("cola")]
    | Annotated[DeloresSConfig, Tag("delores-s")]
    | Annotated[DeloresMConfig, Tag("delores-m")]
    | Annotated[ByolAConfig, Tag("byol-a")]
    | Annotated[SlicerConfig, Tag("slicer")],
    # Runs of before there were others do not say which method they are of.
    Discriminator(lambda method: method.get("kind", "decar-v2") if isinstance(method, dict) else method.kind),
]
"""Settings of a pre-training method; ``kind`` says of which."""


class UnfusedConfig(Config):
    """UnFuSeD: self-distillation within one network, from its end to a branch after each block (arXiv 2303.05668).

    Loss: L_ce + alpha · Σ L_ce^i + (1 - alpha) · Σ L_kl^i + beta · Σ L_mse^i, over the branches i.
    """

    alpha: Probability = 0.7
    """Share of the branches' cross entropies; 1 - alpha is that of their KL divergences (0.7 in the LAPE code)."""
    beta: NonNegativeFloat = 0.003
    """Weight of the branches' MSE, 2 - 2·cos (0.003 in the LAPE code)."""
    temperature: PositiveFloat = 1.0
    """Of both softmaxes in the KL divergence, which is multiplied by its square (1 in the LAPE code, 3 in
    arXiv 1905.08094)."""
    detach_teacher: bool = True
    """Whether KL and MSE pull the branches alone. Where not, as in the LAPE code, they pull the teacher as well."""
    mse_of: Literal["logits", "features"] = "logits"
    """What the MSE compares: the logits (LAPE), or the heads' hidden features (arXiv 1905.08094)."""
    head_hidden: PositiveInt = 512
    """Hidden width of the four heads; less than 512 would be a bottleneck."""
    num_views: Annotated[int, Field(ge=1, le=2)] = 1
    """Augmented views of a clip in a step."""
    cut: Cut = "fc1"
    """Layer that the student ends with: what is exported is the network up to it, without its heads."""


Readout = Literal["last", "blocks", "both"]
"""Which layers of an encoder are read: its last, its convolution blocks, or both."""


class PseudoLabelConfig(Config):
    """Pseudo-labels of the target task (UnFuSeD, arXiv 2303.05668): k-means of the teacher's whole-clip embeddings."""

    origin: Literal["teacher", "random", "shuffled", "true"] = "teacher"
    """The teacher's clusters. For analysis alone: those of a random encoder, the teacher's dealt out at random (the
    floor), or the true labels (the ceiling)."""
    num_clusters: tuple[Annotated[int, Field(ge=2)], ...] = (48,)
    """Clusters (K_t). Several numbers give several clusterings, each with logits of its own."""
    readout: Readout = "last"
    """Layers of the teacher that are clustered."""
    max_dim: PositiveInt = 128
    """PCA-whitening keeps min(max_dim, clips / 8) dimensions."""
    starts: PositiveInt = 10
    """Runs of k-means, of which the one with the least inertia counts."""
    iterations: PositiveInt = 50
    """Lloyd iterations of a run."""

    @model_validator(mode="after")
    def _has_heads(self) -> Self:
        if not self.num_clusters:
            raise ValueError("num_clusters=() must name at least one number of clusters")
        return self


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


LapeTaskCode = Literal[
    "sc-v1", "sc-v2-12", "sc-v2-35", "lbs", "vc", "ic", "vf", "ns", "bsd", "tut", "us8k", "lbs-chapters"
]
"""A task of the LAPE benchmark; ``python -m unfused_ray tasks`` says what each is."""


class PrepareConfig(Config):
    """Ingest: any audio to shards."""

    task: LapeTaskCode | Literal[""] = ""
    """Instead of a source: a LAPE task, of the data set as its publisher distributes it. Its clips are kept whole."""
    root: str = ""
    """Folder that holds the task's data set, by path or URI; empty is the environment variable UNFUSED_RAY_DATA."""
    source: str = ""
    """Audio, CSV, WebDataset tar or hub-style Parquet, by path or URI: a file, a folder, or a pattern (`d/*.tar`).

    `*` stands for any characters. A folder with CSV files directly in it (train.csv, valid.csv …) is read by them. A
    CSV has a column `files` or `wav_path` (absolute, or relative to the CSV's folder or the one above), and may have
    `label`, `split` (else the name of the CSV, where there are several) and `group`.
    """
    output: str = ""
    """Folder the shards are written to, by path or URI."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the source's clips that is taken, the same for the same seed."""
    seed: Seed = 31
    """Decides which clips `fraction` takes and their order in the shards."""
    max_seconds: PositiveFloat = 10.0
    """Longest clip of a shard."""
    long_clips: Literal["split", "truncate"] = "split"
    """What happens to longer ones: cut into pieces of max_seconds, or only the first piece kept.

    A recording of more than 24 hours is set aside as 'too long' where it is split."""
    min_seconds: PositiveFloat = 0.1
    """Shorter clips are set aside as 'too short'."""
    silence_peak: NonNegativeFloat = 1e-4
    """Clips whose largest magnitude is less than this are set aside as 'silent' (full scale is 1); 0 keeps all."""
    clips_per_shard: PositiveInt = 4096
    """Source clips of a shard, which one Ray task writes; small sources get smaller ones."""
    row_group_megabytes: PositiveFloat = 16.0
    """Size of a row group, the unit of reading; small sources get smaller ones."""
    front_end: FrontEndConfig = FrontEndConfig()
    """The front end whose statistics are computed along the way."""
    preview: bool = False
    """Also write PNG and WAV of 16 clips with their augmented views to <output>/preview."""

    @property
    def reads(self) -> str:
        """What is read, to tell a person."""
        return f"task {self.task} in {self.root}" if self.task else self.source

    @model_validator(mode="after")
    def _task_or_source(self) -> Self:
        if self.task and self.source:
            raise ValueError(f"task={self.task} and source={self.source} contradict each other: give one of them")
        if self.root and not self.task:
            raise ValueError(f"root={self.root} has no meaning without a task: give --task, or --source instead")
        for field in ("max_seconds", "long_clips", "min_seconds", "silence_peak") if self.task else ():
            value = getattr(self, field)
            if value != type(self).model_fields[field].default:
                raise ValueError(
                    f"{field}={value} has no meaning with task={self.task}, whose clips are kept whole, the short and "
                    "the silent ones too: leave it out"
                )
        return self


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


class EmbedConfig(Config):
    """Vectors of any audio, or of prepared shards, as Parquet."""

    encoder: str = ""
    """Run, exported encoder or student, by path or URI."""
    source: str = ""
    """A folder written by jobs/prepare.py, or any audio, named as for jobs/prepare.py."""
    output: str = ""
    """Folder the vectors are written to, by path or URI."""
    splits: tuple[str, ...] = ()
    """Of a prepared source, splits to embed; none named is all."""
    readout: Readout = "last"
    """Layers the vectors are made of."""
    window_seconds: NonNegativeFloat = 0.0
    """Length of the windows that slide over a clip, a vector each; 0 makes one vector of a whole clip. Of a recording
    longer than max_seconds they begin anew at every piece, and 0 makes one vector of each."""
    hop_seconds: NonNegativeFloat = 0.0
    """From the start of one window to the next; 0 is window_seconds."""
    max_seconds: PositiveFloat = 60.0
    """A longer recording is embedded in pieces of this length, which bounds the memory of a task: it has a vector a
    piece, or windows that begin anew at every piece."""
    clips_per_part: PositiveInt = 256
    """Most clips of a part of the output, which one task writes; small sources get smaller ones. Row groups (of shards,
    of Parquet sources) stay whole."""
    gpus_per_task: NonNegativeFloat = 0.0
    """GPUs that a task reserves; 0 embeds on CPUs, one a task."""

    @model_validator(mode="after")
    def _hop_needs_windows(self) -> Self:
        if self.hop_seconds and not self.window_seconds:
            raise ValueError(f"hop_seconds={self.hop_seconds:g} has no meaning where window_seconds=0: name both")
        if self.window_seconds > self.max_seconds:
            raise ValueError(
                f"window_seconds={self.window_seconds:g} must not exceed max_seconds={self.max_seconds:g}, the length "
                "of the pieces that windows slide over"
            )
        return self


class EvaluateConfig(Config):
    """Linear evaluation of frozen encoders on labelled tasks, beside what needs no training."""

    models: tuple[str, ...] = ()
    """Runs, exported encoders or students, as PATH or NAME=PATH; `{task}` in a path stands for the task's name, where
    every task has a student of its own, or every fold: `us8k-fold3` is tested on fold3."""
    tasks: tuple[str, ...] = ()
    """Folders written by jobs/prepare.py, of labelled clips with splits train, test and, best, valid; or fold1, fold2 …
    of which one is tested at a time and the next validates: the mean counts."""
    name: str = "evaluation"
    """Name in tracking, and of the default output folder."""
    output: str = ""
    """Folder for tables and pictures, by path or URI; empty is <home>/evaluations/<name>, where <home> is the
    environment variable UNFUSED_RAY_HOME, or ~/unfused-ray."""
    reference: str = ""
    """Row that all others are compared with; empty is the first of the models."""
    protocol: str = ""
    """TOML file that says how everything is read and scored; empty is the one that comes with the package."""
    random_seeds: Annotated[int, Field(ge=0)] = 3
    """Random networks of each shape; 0 leaves them out."""
    cache: str = ""
    """Folder that embeddings are kept in, by path or URI; empty is <home>/embeddings."""
    processes: Annotated[int, Field(ge=0)] = 0
    """Cells filled side by side: they share the cores, and each has its vectors in memory; 0 is one a core."""
    tracking: TrackingConfig = TrackingConfig()


class SweepConfig(Config):
    """A sweep of a distillation's settings with Ray Tune, judged on validation clips alone.

    A trial distils a student for each task. Of several tasks the mean validation accuracy decides, of a single one a
    cross-validation by groups over its training and validation clips: one small split selects noise.
    """

    tasks: tuple[str, ...] = ()
    """Folders written by jobs/prepare.py, of labelled clips with splits train and, best, valid. Test is never read
    before the end."""
    name: str = "sweep"
    """Name in tracking, and of the default output folder."""
    output: str = ""
    """Folder the sweep is written to, by path or URI; empty is <home>/sweeps/<name>, where <home> is the environment
    variable UNFUSED_RAY_HOME, or ~/unfused-ray."""
    resume: bool = False
    """Go on with the sweep that is in the output folder: finished trials are kept, others go on from their
    checkpoints."""
    space: str = "alpha-beta"
    """What is varied: a name in tuning/spaces.py."""
    search: Literal["tpe", "random", "grid"] = "tpe"
    """How points are chosen: Optuna's TPE, at random, or on a grid."""
    num_trials: PositiveInt = 20
    """Trials in all, the default one among them: that of the settings below as they are. A grid is as fine as they
    allow."""
    early_stopping: bool = True
    """Stop the worse trials early (ASHA); the default one goes to its end, for the others to be compared with."""
    halving: Annotated[int, Field(ge=2)] = 3
    """One in so many trials goes on at each of ASHA's rungs, which are so many times apart."""
    grace: PositiveFloat = 0.25
    """First rung, as a share of the epochs."""
    readouts: Annotated[tuple[Readout, ...], Field(min_length=1)] = ("last",)
    """Layers the probe may choose among; each further one takes the probe's time again."""
    protocol: str = ""
    """TOML file that says how everything is read and scored; empty is the one that comes with the package."""
    cpus_per_trial: PositiveInt = 1
    """CPUs of a trial that trains in its own process: as many trials as fit run at a time."""
    gpus_per_trial: Annotated[float, Field(gt=0, le=1)] = 1.0
    """GPUs of a trial that trains in its own process, on a cluster that has any: 0.5 lets two share one."""
    workers_per_trial: Annotated[int, Field(ge=0)] = 0
    """Workers of a worker group for each trial; 0 trains in the trial's own process."""
    max_concurrent: Annotated[int, Field(ge=0)] = 0
    """Trials at a time at most; 0 as many as fit."""
    seed: Seed = 0
    """Of the search."""
    distill: DistillConfig = DistillConfig()
    """What a trial changes a few fields of; its data and output are the sweep's business."""
    random_seeds: Annotated[int, Field(ge=0)] = 3
    """Random networks beside the winner in the table on the test split; 0 leaves them out."""
