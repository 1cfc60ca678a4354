"""Settings of the pre-training methods, of UnFuSeD and of its pseudo-labels."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from unfused_ray.config.base import Config, NonNegativeFloat, PositiveFloat, PositiveInt, Probability
from unfused_ray.config.model import Cut, Readout


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
    DecarConfig | ColaConfig | DeloresSConfig | DeloresMConfig | ByolAConfig | SlicerConfig,
    Field(discriminator="kind"),
]
"""Settings of one pre-training method, told apart by ``kind``."""


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
