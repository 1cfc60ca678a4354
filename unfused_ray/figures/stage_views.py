"""How a run is told of, by its stage: which curves are drawn and summed up, and what its groups of clips are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from unfused_ray import storage
from unfused_ray.config import DecarConfig, DistillConfig, EncoderConfig, FrontEndConfig
from unfused_ray.figures.run_figures import Panel
from unfused_ray.figures.run_folder import RunFolder
from unfused_ray.models.cost import REFERENCE_PARAMETERS, cost_of
from unfused_ray.models.export import FOLDERS, find_export, read_description


@dataclass(frozen=True)
class Row:
    """One figure of the history in a summary: its first and its last value."""

    heading: str
    figure: str
    """Its name in the history."""
    form: str
    """Format specification of its values."""


class StageView(Protocol):
    """What pictures and tables of a run depend on its stage for."""

    group: str
    """What clips are grouped by; empty where they are not."""
    choice: str
    """Which clips of a group the sheet shows."""
    labels_note: str
    """What the labels, where clips have any, had to do with it."""
    rows: Sequence[Row]
    """Of the summary."""

    def panels(self) -> Sequence[Panel]:
        """Of the picture of its health.

        Raises:
            FileNotFoundError: nothing was clustered yet.
        """
        ...

    def facts(self) -> dict[str, str]:
        """Further rows of the summary, by heading, as far as they are known yet."""
        ...


class ClusteringView:
    """DECAR-v2: is the loss falling, are the clusters stable, is anything collapsing?"""

    group = "cluster"
    choice = "clips nearest to their centroid"
    labels_note = "labels were never trained on"
    rows: Sequence[Row] = (
        Row("loss", "loss", ".3f"),
        Row("NMI to the epoch before", "nmi_previous", ".2f"),
        Row("effective rank", "effective_rank", ".1f"),
        Row("empty clusters", "empty_clusters", ".0f"),
        Row("clips per second", "clips_per_second", ".1f"),
    )

    def __init__(self, run: RunFolder, method: DecarConfig) -> None:
        self.run = run
        self.method = method

    def panels(self) -> Sequence[Panel]:
        """See :class:`StageView`."""
        dim = self.method.projection_dim
        return (
            Panel("loss", "loss", f"cross entropy; a blind guess is {_blind_guess(self.run):.2f}"),
            Panel("agreement", "agreement", "share of views nearest to their pseudo-label"),
            Panel("nmi_previous", "stability", "NMI with the epoch before; 1 is unchanged"),
            Panel("effective_rank", "effective rank", f"directions used, of {dim}; near 1 is collapse"),
            Panel("inertia", "inertia", "squared distances to the centroids, summed"),
            Panel("size_entropy", "cluster sizes: entropy", "1 is all clusters equal, 0 is one cluster"),
            Panel("largest_share", "largest cluster", "share of all clips"),
            Panel("empty_clusters", "empty clusters", "after k-means: prototypes that no clip has"),
            Panel("learning_rate", "learning rate", "at the end of the epoch"),
            Panel("clips_per_second", "speed", "clips per second"),
        )

    def facts(self) -> dict[str, str]:
        """See :class:`StageView`; there are none."""
        return {}


_TERMS = (
    Panel("info_nce", "InfoNCE", "cross entropy of each clip's key among the queue's"),
    Panel("invariance", "invariance", "Σ (1 - C_ii)² of the views' correlations; 0 is equal views"),
    Panel("redundancy", "redundancy", "Σ C_ij², j ≠ i, of the views' correlations; 0 is no redundancy"),
    Panel("instance_loss", "instance contrast", "InfoNCE of the clips, both directions"),
    Panel("cluster_loss", "cluster contrast", "of the soft clusters' columns, less weighted entropies"),
    Panel("agreement", "agreement", "share of clips whose positive is the most similar"),
)
"""What the losses of the methods without pseudo-labels are made of, and how often they hit."""


class ComparisonView:
    """A pre-training without pseudo-labels: is the loss falling, which of its terms, is anything collapsing?"""

    group = ""
    choice = ""
    labels_note = "labels were never trained on"

    def __init__(self, run: RunFolder) -> None:
        self._terms = [term for term in _TERMS if any(term.figure in entry for entry in run.history)]
        self.rows: Sequence[Row] = (
            Row("loss", "loss", ".3f"),
            *(Row(term.heading, term.figure, ".3f") for term in self._terms),
            Row("effective rank", "effective_rank", ".1f"),
            Row("clips per second", "clips_per_second", ".1f"),
        )

    def panels(self) -> Sequence[Panel]:
        """See :class:`StageView`."""
        return (
            Panel("loss", "loss", "a mean over the clips"),
            *self._terms,
            Panel("effective_rank", "effective rank", "directions used by an epoch's last batch; near 1 is collapse"),
            Panel("learning_rate", "learning rate", "at the end of the epoch"),
            Panel("clips_per_second", "speed", "clips per second"),
        )

    def facts(self) -> dict[str, str]:
        """See :class:`StageView`; there are none."""
        return {}


class DistillationView:
    """UnFuSeD: does the teacher learn its pseudo-labels, and do the branches follow?"""

    group = "pseudo-label"
    rows: Sequence[Row] = (
        Row("loss", "loss", ".3f"),
        Row("cross entropy of the teacher", "ce", ".3f"),
        Row("cross entropy of the branches", "ce_branches", ".3f"),
        Row("KL of the branches", "kl", ".3f"),
        Row("MSE of the branches", "mse", ".3f"),
        Row("agreement with the pseudo-labels", "agreement", ".2f"),
        Row("clips per second", "clips_per_second", ".1f"),
    )

    def __init__(self, run: RunFolder, config: DistillConfig) -> None:
        self.run = run
        self.config = config
        has_distances = config.labels.origin in ("teacher", "random")
        self.choice = "clips nearest to their centroid" if has_distances else "some clips"
        is_ceiling = config.labels.origin == "true"
        self.labels_note = "it was trained on the labels" if is_ceiling else "labels were never trained on"

    def panels(self) -> Sequence[Panel]:
        """See :class:`StageView`."""
        alpha, beta = self.config.method.alpha, self.config.method.beta
        guess = _blind_guess(self.run)
        compared = self.config.method.mse_of
        return (
            Panel("loss", "loss", "weighted sum of the four terms"),
            Panel("ce", "cross entropy of the teacher", f"× 1 in the loss; a blind guess is {guess:.2f}"),
            Panel("ce_branches", "cross entropy of the branches", f"summed over them; × α = {alpha:g} in the loss"),
            Panel("kl", "KL, teacher ‖ branches", f"summed over them; × 1 - α = {1 - alpha:g} in the loss"),
            Panel("mse", "MSE, teacher and branches", f"of {compared}, summed; × β = {beta:g} in the loss"),
            Panel("agreement", "agreement of the teacher", "share of clips whose pseudo-label it predicts"),
            Panel("learning_rate", "learning rate", "at the end of the epoch"),
            Panel("clips_per_second", "speed", "clips per second"),
        )

    def facts(self) -> dict[str, str]:
        """See :class:`StageView`."""
        facts = {}
        if self.run.is_labelled:
            facts["pseudo-labels"] = self._pseudo_labels()
        if find_export(self.run.uri) is not None:
            facts["student"] = self._student()
        return facts

    def _pseudo_labels(self) -> str:
        assignment = self.run.assignment
        teacher = _name(self.config.teacher)
        origin = {
            "teacher": f"clusters of the teacher {teacher}",
            "random": "clusters of a random encoder",
            "shuffled": f"clusters of the teacher {teacher}, dealt out at random",
            "true": "true classes",
        }[self.config.labels.origin]
        text = " + ".join(str(len(prototypes)) for prototypes in assignment.prototypes) + f" {origin}"
        agreement = [f"{value:.2f}" for name, value in assignment.health.items() if name.endswith("nmi_labels")]
        return f"{text}, NMI with the labels {', '.join(agreement)}" if agreement else text

    def _student(self) -> str:
        description = read_description(self.run.uri)
        shape, front_end = EncoderConfig(**description["encoder"]), FrontEndConfig(**description["front_end"])
        (count, cost), (_, whole) = (cost_of(config, front_end) for config in (shape, EncoderConfig()))
        saving = 100 * (1 - count / REFERENCE_PARAMETERS)
        return (
            f"the network up to {shape.cut}: {count:,} parameters "
            f"({saving:.0f} % fewer than {REFERENCE_PARAMETERS:,}), "
            f"{cost / 1e6:.3g} million multiply–adds per second of audio (the whole encoder: {whole / 1e6:.3g})"
        )


def view_of(run: RunFolder) -> StageView:
    """How a run is told of."""
    if isinstance(run.config, DistillConfig):
        return DistillationView(run, run.config)
    method = run.config.method
    return ClusteringView(run, method) if isinstance(method, DecarConfig) else ComparisonView(run)


def _blind_guess(run: RunFolder) -> float:
    """Cross entropy of giving every group the same share, averaged over the heads."""
    prototypes = run.assignment.prototypes
    return sum(math.log(len(head)) for head in prototypes) / len(prototypes)


def _name(teacher: str) -> str:
    """The name of a teacher's run, which may be given by the folder of its export."""
    return storage.name(storage.parent(teacher) if storage.name(teacher) in FOLDERS else teacher)
