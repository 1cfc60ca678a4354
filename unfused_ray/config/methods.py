"""Settings of the pre-training methods, of UnFuSeD and of its pseudo-labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from unfused_ray.config.base import Config, NonNegativeFloat, PositiveFloat, PositiveInt, Probability
from unfused_ray.config.model import Cut, Readout

NumClusters = Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)]
"""Numbers of clusters, one for each clustering."""


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
    num_clusters: NumClusters = (512,)
    """Number of clusters (DECAR: 512). Several numbers make several heads."""
    temperature: PositiveFloat = 0.1
    """Temperature of the softmax over projection · prototype."""
    kmeans_iterations: PositiveInt = 10
    """Lloyd iterations of each epoch's k-means, which starts anew."""
    labels_from: Literal["bank", "full_pass"] = "bank"
    """Embeddings that are clustered: those of the last epoch's training steps (bank), or of an extra pass each
    epoch."""
    bank_embedding: Literal["view0_clean", "mean_of_views"] = "view0_clean"
    """Embedding that the bank keeps: the first view's projection without dropout, or the mean of both views'
    projections as trained."""
    assignment_shards: PositiveInt = 1
    """Processes that share the bank and its k-means. On processors one of them lies on the driver's node (256 MB for a
    million clips), several lie on any nodes."""
    assignment_gpus: NonNegativeFloat = 0.0
    """GPU, or share of one, that each of these processes reserves beside the workers' for k-means by faiss (extra gpu);
    0 clusters on processors. Worth it for millions of clips or thousands of clusters."""

    @property
    def idle(self) -> Mapping[str, str]:
        """Fields that do not count."""
        why = "with labels_from=full_pass, which keeps no bank"
        return {"bank_embedding": why} if self.labels_from == "full_pass" else {}


class ColaConfig(Config):
    """COLA: two crops of a clip are a positive pair, those of other clips negatives (arXiv 2010.10915)."""

    shapes: ClassVar[tuple[str, ...]] = ("projection_dim",)

    kind: Literal["cola"] = "cola"
    """The method."""
    projection_dim: PositiveInt = 512
    """Size of the projection (sec. 3.1)."""


class DeloresSConfig(Config):
    """DeLoRes-S: cross-correlations of two views' features pulled towards the identity (arXiv 2203.13628).

    Loss: Σ_i (1 - C_ii)² + off_diagonal · Σ_i Σ_{j≠i} C_ij².
    """

    shapes: ClassVar[tuple[str, ...]] = ("decorrelation_dim",)

    kind: Literal["delores-s"] = "delores-s"
    """The method."""
    decorrelation_dim: PositiveInt = 2048
    """Width of the head's three layers, the number of decorrelated features (2048 in the LAPE code)."""
    off_diagonal: NonNegativeFloat = 0.0051
    """Weight of redundancy reduction against invariance (0.0051 in Barlow Twins and the authors' first code, 1 in the
    LAPE code)."""


class DeloresMConfig(Config):
    """DeLoRes-M: momentum contrast, and decorrelation after each block (doi 10.1109/JSTSP.2022.3202093).

    Loss: InfoNCE + Σ_l (on_diagonal · Σ_i (1 - C_ii)² + off_diagonal · Σ_i Σ_{j≠i} C_ij²), over the blocks l.
    """

    shapes: ClassVar[tuple[str, ...]] = ("projection_dim", "queue", "decorrelation_dim")

    kind: Literal["delores-m"] = "delores-m"
    """The method."""
    projection_dim: PositiveInt = 128
    """Size of queries and keys, the L2-normalised projections."""
    queue: PositiveInt = 65_536
    """Number of past keys that serve as negatives (65,536 in MoCo, arXiv 1911.05722)."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the key encoder, the share of itself that it keeps at a step."""
    temperature: PositiveFloat = 0.07
    """Temperature of the softmax over query · key."""
    decorrelation_dim: PositiveInt = 2048
    """Width of the three layers of each block's head, the number of its decorrelated features."""
    on_diagonal: NonNegativeFloat = 5e-5 / 32
    """Weight of invariance (5e-5 / 32 in the LAPE code, which leaves little but InfoNCE; 1 in the authors' older
    code)."""
    off_diagonal: NonNegativeFloat = 5e-5 / 32
    """Weight of redundancy reduction (5e-5 / 32 in the LAPE code, 0.0051 in the authors' older code)."""


class ByolAConfig(Config):
    """BYOL-A: predict a slowly following target network's projection of another view (arXiv 2103.06695)."""

    shapes: ClassVar[tuple[str, ...]] = ("hidden", "projection_dim")

    kind: Literal["byol-a"] = "byol-a"
    """The method."""
    hidden: PositiveInt = 4096
    """Hidden width of projector and predictor."""
    projection_dim: PositiveInt = 256
    """Size of the projection and of the prediction."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the target network, the share of itself that it keeps at a step."""


class SlicerConfig(Config):
    """SLICER: instance- and cluster-level contrast of a student, with a teacher's queue of keys (arXiv 2211.01519).

    Loss: both directions' InfoNCE + cluster contrast - entropy · (entropies of both views' cluster sizes).
    """

    shapes: ClassVar[tuple[str, ...]] = ("projection_dim", "num_clusters", "queue")

    kind: Literal["slicer"] = "slicer"
    """The method."""
    projection_dim: PositiveInt = 128
    """Size of the instance-level projection."""
    num_clusters: Annotated[int, Field(ge=2)] = 128
    """Number of clusters of the learnt soft assignment."""
    queue: PositiveInt = 65_536
    """Number of past keys that serve as negatives, two per clip."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the teacher, the share of itself that it keeps at a step."""
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
"""Settings of one pre-training method, told apart by ``kind``."""


class UnfusedConfig(Config):
    """UnFuSeD: self-distillation within one network, from its end to a branch after each block (arXiv 2303.05668).

    Loss: L_ce + alpha · Σ L_ce^i + (1 - alpha) · Σ L_kl^i + beta · Σ L_mse^i, over the branches i.
    """

    alpha: Probability = 0.7
    """Weight of the branches' cross entropies; their KL divergences have 1 - alpha (0.7 in the LAPE code)."""
    beta: NonNegativeFloat = 0.003
    """Weight of the branches' MSE, which is 2 - 2·cos (0.003 in the LAPE code)."""
    temperature: PositiveFloat = 1.0
    """Temperature T of both softmaxes in the KL divergence, which is multiplied by T² (1 in the LAPE code, 3 in
    arXiv 1905.08094)."""
    detach_teacher: bool = True
    """Stop the gradients of KL and MSE at the network's last classifier, which teaches its branches (it is not
    --teacher); false lets them through, as the LAPE code does."""
    mse_of: Literal["logits", "features"] = "logits"
    """Outputs that the MSE compares: the logits (LAPE code), or the heads' hidden features (arXiv 1905.08094)."""
    head_hidden: PositiveInt = 512
    """Hidden width of the four heads; less than 512 would be a bottleneck."""
    num_views: Annotated[int, Field(ge=1, le=2)] = 1
    """Number of augmented views of a clip in a step."""
    cut: Cut = "fc1"
    """Last layer of the student, which is exported without its heads."""

    @property
    def idle(self) -> Mapping[str, str]:
        """Fields that do not count."""
        without_mse = {"mse_of": "with beta=0, which leaves the MSE out"} if self.beta == 0 else {}
        without_kl = {"temperature": "with alpha=1, which leaves the KL divergence out"} if self.alpha == 1 else {}
        return {**without_mse, **without_kl}


class PseudoLabelConfig(Config):
    """Pseudo-labels of the target task (UnFuSeD, arXiv 2303.05668): k-means of the teacher's whole-clip embeddings."""

    origin: Literal["teacher", "random", "shuffled", "true"] = "teacher"
    """Source of the labels: the teacher's clusters or, for analysis alone, a random encoder's clusters, the teacher's
    clusters shuffled (the floor), or the true labels (the ceiling)."""
    num_clusters: NumClusters = (48,)
    """Number of clusters (K_t). Several numbers make several clusterings, each with its own logits."""
    readout: Readout = "last"
    """Layers of the teacher whose embeddings are clustered."""
    max_dim: PositiveInt = 128
    """Most dimensions that PCA-whitening keeps; it keeps at most an eighth of the number of clips."""
    starts: PositiveInt = 10
    """Runs of k-means; the one with the lowest inertia is taken."""
    iterations: PositiveInt = 50
    """Lloyd iterations of each run."""
