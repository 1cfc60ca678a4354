"""Settings of the pre-training methods, of UnFuSeD and of its pseudo-labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from unfused_ray.config.base import Config, NonNegativeFloat, PositiveFloat, PositiveInt, Probability
from unfused_ray.config.model import Cut, Readout

NumClusters = Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)]
"""Number of clusters of each clustering."""


class DecarConfig(Config):
    """DECAR-v2: k-means pseudo-labels, prototypes set to the centroids (DeepCluster-v2, arXiv 2006.09882)."""

    shapes: ClassVar[tuple[str, ...]] = ("projection_hidden", "projection_dim")
    """Fields that determine the shapes of the method's weights."""

    kind: Literal["decar-v2"] = "decar-v2"
    """Name of the method."""
    projection_hidden: PositiveInt = 2048
    """Hidden width of the projection head."""
    projection_dim: PositiveInt = 128
    """Size of the L2-normalised projection that is clustered and compared with the prototypes."""
    num_clusters: NumClusters = (512,)
    """Number of clusters (DECAR: 512). Several numbers make several heads."""
    temperature: PositiveFloat = 0.1
    """Temperature of the softmax over the products projection · prototype."""
    kmeans_iterations: PositiveInt = 10
    """Number of Lloyd iterations of the k-means, which starts anew each epoch."""
    labels_from: Literal["bank", "full_pass"] = "bank"
    """Embeddings that are clustered: those of the last epoch's training steps (bank), or those of an extra pass over
    all clips each epoch (full_pass)."""
    bank_embedding: Literal["view0_clean", "mean_of_views"] = "view0_clean"
    """Embedding of a clip that the bank keeps: the first view's projection without dropout (view0_clean), or the mean
    of both views' projections as trained (mean_of_views)."""
    assignment_shards: PositiveInt = 1
    """Number of processes that share the bank and its k-means. On CPUs a single process lies on the driver's node (256
    MB for a million clips); several may lie on any nodes."""
    assignment_gpus: NonNegativeFloat = 0.0
    """Number of GPUs, or share of one, that each of these processes reserves for k-means by faiss (extra gpu), in
    addition to the workers' GPUs; 0 clusters on CPUs. A GPU is worth it for millions of clips or thousands of
    clusters."""

    @property
    def idle(self) -> Mapping[str, str]:
        """Fields that have no effect."""
        why = "with labels_from=full_pass, which keeps no bank"
        return {"bank_embedding": why} if self.labels_from == "full_pass" else {}


class ColaConfig(Config):
    """COLA: two crops of a clip are a positive pair, crops of different clips are negatives (arXiv 2010.10915)."""

    shapes: ClassVar[tuple[str, ...]] = ("projection_dim",)

    kind: Literal["cola"] = "cola"
    """Name of the method."""
    projection_dim: PositiveInt = 512
    """Size of the projection (sec. 3.1)."""


class DeloresSConfig(Config):
    """DeLoRes-S: the cross-correlation of two views' features is pulled towards the identity (arXiv 2203.13628).

    Loss: Σ_i (1 - C_ii)² + off_diagonal · Σ_i Σ_{j≠i} C_ij².
    """

    shapes: ClassVar[tuple[str, ...]] = ("decorrelation_dim",)

    kind: Literal["delores-s"] = "delores-s"
    """Name of the method."""
    decorrelation_dim: PositiveInt = 2048
    """Width of the head's three layers, which is the number of decorrelated features (2048 in the LAPE code)."""
    off_diagonal: NonNegativeFloat = 0.0051
    """Weight of redundancy reduction relative to invariance (0.0051 in Barlow Twins and the authors' first code, 1 in
    the LAPE code)."""


class DeloresMConfig(Config):
    """DeLoRes-M: momentum contrast, and decorrelation after each block (doi 10.1109/JSTSP.2022.3202093).

    Loss: InfoNCE + Σ_l (on_diagonal · Σ_i (1 - C_ii)² + off_diagonal · Σ_i Σ_{j≠i} C_ij²), over the blocks l.
    """

    shapes: ClassVar[tuple[str, ...]] = ("projection_dim", "queue", "decorrelation_dim")

    kind: Literal["delores-m"] = "delores-m"
    """Name of the method."""
    projection_dim: PositiveInt = 128
    """Size of queries and keys, the L2-normalised projections."""
    queue: PositiveInt = 65_536
    """Number of past keys that serve as negatives (65,536 in MoCo, arXiv 1911.05722)."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the key encoder: the share of its weights that it keeps at each step."""
    temperature: PositiveFloat = 0.07
    """Temperature of the softmax over the products query · key."""
    decorrelation_dim: PositiveInt = 2048
    """Width of the three layers of each block's head, which is the number of its decorrelated features."""
    on_diagonal: NonNegativeFloat = 5e-5 / 32
    """Weight of invariance (5e-5 / 32 in the LAPE code, where little but InfoNCE is left; 1 in the authors' older
    code)."""
    off_diagonal: NonNegativeFloat = 5e-5 / 32
    """Weight of redundancy reduction (5e-5 / 32 in the LAPE code, 0.0051 in the authors' older code)."""


class ByolAConfig(Config):
    """BYOL-A: predict the projection that a slowly following target network makes of another view (arXiv
    2103.06695)."""

    shapes: ClassVar[tuple[str, ...]] = ("hidden", "projection_dim")

    kind: Literal["byol-a"] = "byol-a"
    """Name of the method."""
    hidden: PositiveInt = 4096
    """Hidden width of projector and predictor."""
    projection_dim: PositiveInt = 256
    """Size of the projection and of the prediction."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the target network: the share of its weights that it keeps at each step."""


class SlicerConfig(Config):
    """SLICER: instance- and cluster-level contrast of a student, with a teacher's queue of keys (arXiv 2211.01519).

    Loss: InfoNCE in both directions + cluster contrast - entropy · (entropies of both views' cluster sizes).
    """

    shapes: ClassVar[tuple[str, ...]] = ("projection_dim", "num_clusters", "queue")

    kind: Literal["slicer"] = "slicer"
    """Name of the method."""
    projection_dim: PositiveInt = 128
    """Size of the instance-level projection."""
    num_clusters: Annotated[int, Field(ge=2)] = 128
    """Number of clusters of the learnt soft assignment."""
    queue: PositiveInt = 65_536
    """Number of past keys that serve as negatives; each clip adds two."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the teacher: the share of its weights that it keeps at each step."""
    temperature: PositiveFloat = 0.07
    """Temperature of the instance-level softmax."""
    cluster_temperature: PositiveFloat = 1.0
    """Temperature of the cluster-level softmax."""
    entropy: NonNegativeFloat = 0.0
    """Weight of the entropy of cluster sizes, which keeps clusters from emptying (1 in arXiv 2009.09687, 0 in the LAPE
    code)."""


PretrainMethodConfig = Annotated[
    DecarConfig | ColaConfig | DeloresSConfig | DeloresMConfig | ByolAConfig | SlicerConfig,
    Field(discriminator="kind"),
]
"""Settings of one pre-training method; ``kind`` names it."""


class UnfusedConfig(Config):
    """UnFuSeD: self-distillation within one network, from its end to a branch after each block (arXiv 2303.05668).

    Loss: L_ce + alpha · Σ L_ce^i + (1 - alpha) · Σ L_kl^i + beta · Σ L_mse^i, over the branches i.
    """

    alpha: Probability = 0.7
    """Weight of the branches' cross entropies; their KL divergences have the weight 1 - alpha (0.7 in the LAPE
    code)."""
    beta: NonNegativeFloat = 0.003
    """Weight of the branches' MSE, which is 2 - 2·cos (0.003 in the LAPE code); 0 leaves it out."""
    temperature: PositiveFloat = 1.0
    """Temperature T of both softmaxes in the KL divergence, which is multiplied by T² (1 in the LAPE code, 3 in
    arXiv 1905.08094)."""
    detach_teacher: bool = True
    """Stop the gradients of KL and MSE at the network's last classifier, which teaches the branches (it is not
    --teacher). False lets them through, as the LAPE code does."""
    mse_of: Literal["logits", "features"] = "logits"
    """Outputs that the MSE compares: the logits (LAPE code), or the heads' hidden features (arXiv 1905.08094)."""
    head_hidden: PositiveInt = 512
    """Hidden width of the four heads; a width below 512 would be a bottleneck."""
    num_views: Annotated[int, Field(ge=1, le=2)] = 1
    """Number of augmented views of a clip in each step."""
    cut: Cut = "fc1"
    """Last layer of the student, which is exported without its heads."""

    @property
    def idle(self) -> Mapping[str, str]:
        """Fields that have no effect."""
        without_mse = {"mse_of": "with beta=0, which leaves the MSE out"} if self.beta == 0 else {}
        without_kl = {"temperature": "with alpha=1, which leaves the KL divergence out"} if self.alpha == 1 else {}
        without_both = {"detach_teacher": "with alpha=1 and beta=0, which leave KL divergence and MSE out"}
        return {**without_mse, **without_kl, **(without_both if without_mse and without_kl else {})}


class PseudoLabelConfig(Config):
    """Pseudo-labels of the target task (UnFuSeD, arXiv 2303.05668): k-means of the teacher's embeddings of whole
    clips."""

    origin: Literal["teacher", "random", "shuffled", "true"] = "teacher"
    """Source of the labels: the teacher's clusters or, for analysis only, a random encoder's clusters, the teacher's
    clusters shuffled (the floor), or the true labels (the ceiling)."""
    num_clusters: NumClusters = (48,)
    """Number of clusters (K_t). Several numbers make several clusterings, each with its own logits."""
    readout: Readout = "last"
    """Layers of the teacher whose embeddings are clustered."""
    max_dim: PositiveInt = 128
    """Largest number of dimensions that PCA-whitening keeps; it never keeps more than an eighth of the number of
    clips."""
    starts: PositiveInt = 10
    """Number of k-means runs; the one with the lowest inertia is taken."""
    iterations: PositiveInt = 50
    """Number of Lloyd iterations of each run."""
