"""The metrics of a run, by its stage and method: how each is drawn and read, and how clips are grouped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from unfused_ray.config import DistillConfig
from unfused_ray.runs.reader import RunReader

if TYPE_CHECKING:
    from unfused_ray.methods.method import ClusteringRequest, Method


@dataclass(frozen=True)
class Metric:
    """One metric of the history."""

    name: str
    """Name in the history."""
    heading: str
    """Title of the panel."""
    note: str
    """Help for reading: unit, direction, and a bad value."""
    summary: str = ""
    """Heading in a summary of the run; empty if the summary leaves it out."""
    form: str = ".3f"
    """Format specification of the values in a summary."""


@dataclass(frozen=True)
class RunView:
    """How a run is displayed in pictures and pages."""

    metrics: Sequence[Metric]
    group: str = ""
    """Word for a group of clips; empty without pseudo-labels."""
    has_distances: bool = False
    """True if the assignment holds each clip's distance to its centroid."""
    labels_note: str = "labels were not used in training"
    """Role of labels, if clips have any, in the training."""


_LEARNING_RATE = Metric("learning_rate", "learning rate", "at the end of the epoch")
_SPEED = Metric("clips_per_second", "speed", "clips per second", "clips per second", ".1f")


def view_of(run: RunReader) -> RunView:
    """Return the view of a run, by its stage and method."""
    if isinstance(run.config, DistillConfig):
        return _distillation(run, run.config)
    from unfused_ray.methods import METHODS  # here, because it imports torch, which a folder without runs does not need

    method = METHODS[run.config.method.kind]
    request = method.clustering(run.config.method)
    return _clustering(run, method, request) if request else _comparison(method)


def _clustering(run: RunReader, method: type[Method], request: ClusteringRequest) -> RunView:
    """Show a pre-training on pseudo-labels: is the loss falling, are the clusters stable, is anything collapsing?"""
    metrics = (
        Metric("loss", "loss", f"cross entropy{_blind_guess(run)}", "loss"),
        *(Metric(name, term.heading, term.note) for name, term in method.terms.items()),
        Metric(
            "nmi_previous", "stability", "NMI with the epoch before; 1 is unchanged", "NMI to the epoch before", ".2f"
        ),
        _effective_rank(f"directions used, of {request.dim}; near 1 is collapse"),
        Metric("inertia", "inertia", "squared distances to the centroids, summed"),
        Metric("size_entropy", "cluster sizes: entropy", "1 is all clusters equal, 0 is one cluster"),
        Metric("largest_share", "largest cluster", "share of all clips"),
        Metric("empty_clusters", "empty clusters", "after k-means: prototypes without a clip", "empty clusters", ".0f"),
        _LEARNING_RATE,
        _SPEED,
    )
    return RunView(metrics, "cluster", has_distances=True)


def _comparison(method: type[Method]) -> RunView:
    """Show a pre-training without pseudo-labels: is the loss falling, which of its terms, is anything collapsing?"""
    metrics = (
        Metric("loss", "loss", "a mean over the clips", "loss"),
        *(Metric(name, term.heading, term.note, term.heading) for name, term in method.terms.items()),
        _effective_rank("directions used by an epoch's last batch; near 1 is collapse"),
        _LEARNING_RATE,
        _SPEED,
    )
    return RunView(metrics)


def _distillation(run: RunReader, config: DistillConfig) -> RunView:
    """Show UnFuSeD: does the teacher learn its pseudo-labels, and do the branches follow?"""
    alpha, beta, compared = config.method.alpha, config.method.beta, config.method.mse_of
    teacher, branches = "cross entropy of the teacher", "cross entropy of the branches"
    metrics = (
        Metric("loss", "loss", "weighted sum of the four terms", "loss"),
        Metric("ce", teacher, f"× 1 in the loss{_blind_guess(run)}", teacher),
        Metric("ce_branches", branches, f"summed over them; × α = {alpha:g} in the loss", branches),
        Metric(
            *("kl", "KL, teacher ‖ branches", f"summed over them; × 1 - α = {1 - alpha:g} in the loss"),
            summary="KL of the branches",
        ),
        Metric(
            *("mse", "MSE, teacher and branches", f"of {compared}, summed; × β = {beta:g} in the loss"),
            summary="MSE of the branches",
        ),
        Metric(
            *("agreement", "agreement of the teacher", "share of clips whose pseudo-label it predicts"),
            summary="agreement with the pseudo-labels",
            form=".2f",
        ),
        _LEARNING_RATE,
        _SPEED,
    )
    has_distances = config.labels.origin in ("teacher", "random")
    view = RunView(metrics, "pseudo-label", has_distances)
    return replace(view, labels_note="labels were used in training") if config.labels.origin == "true" else view


def _effective_rank(note: str) -> Metric:
    return Metric("effective_rank", "effective rank", note, "effective rank", ".1f")


def _blind_guess(run: RunReader) -> str:
    """Return in words the cross entropy of a uniform guess, averaged over the heads; '' before there are groups."""
    if not run.has_assignment:
        return ""
    prototypes = run.assignment.prototypes
    return f"; a blind guess is {sum(math.log(len(head)) for head in prototypes) / len(prototypes):.2f}"
