"""What tells the training stages apart, from the driver's side: checks of their own, and labels made beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch

from unfused_ray import storage
from unfused_ray.clustering import pseudo_labels
from unfused_ray.clustering.assignment import MANIFEST, Assignment, read_assignment, write_assignment
from unfused_ray.config import Cut, DecarConfig, DistillConfig, PretrainConfig, TrainingConfig
from unfused_ray.data.shards.format import Statistics
from unfused_ray.data.shards.index import ClipIndex, labels_to_ids
from unfused_ray.embedding.clips import embed_clips, read_out
from unfused_ray.embedding.random_network import random_encoder
from unfused_ray.methods.method import Method
from unfused_ray.methods.pretraining import build_pretraining
from unfused_ray.methods.unfused import Unfused
from unfused_ray.models.cost import cost_of, refuse_large_student
from unfused_ray.models.export import FrozenEncoder, find_export, load_encoder, read_description
from unfused_ray.progress import Progress
from unfused_ray.runs.run import PSEUDO_LABELS
from unfused_ray.training.worker.device import set_threads


class Stage(Protocol):
    """A training stage."""

    def check(self, index: ClipIndex, known: Mapping[str, Any]) -> dict[str, Any]:
        """Facts beyond its configuration that must not change while the run is on.

        Args:
            index: the clips.
            known: facts of the run where it has begun.

        Raises:
            ValueError, FileNotFoundError: what cannot work; names field, value and rule.
        """
        ...

    def describe(self, index: ClipIndex) -> dict[str, str]:
        """What is worth knowing before it begins, by heading."""
        ...

    def make_labels(self, run_uri: str, index: ClipIndex, statistics: Statistics) -> None:
        """Make the labels that are fixed for the whole run, unless the run has them already."""
        ...

    def build_method(self, run_uri: str) -> Method:
        """The method, with random weights."""
        ...

    def rehearse(self, index: ClipIndex) -> tuple[Method, Sequence[int]]:
        """The method before any labels are made, to measure it, and the classes of each head that they will have."""
        ...


class Pretraining:
    """DECAR-v2, whose labels are clustered anew each epoch, or a method without labels."""

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config

    def check(self, index: ClipIndex, known: Mapping[str, Any]) -> dict[str, Any]:
        """See :class:`Stage`."""
        _refuse_many_clusters("method.num_clusters", self._num_clusters, index)
        return {}

    def describe(self, index: ClipIndex) -> dict[str, str]:
        """See :class:`Stage`."""
        method = self.config.method
        if not isinstance(method, DecarConfig):
            return {"method": method.kind}
        return {
            "clusters": " + ".join(map(str, method.num_clusters)),
            "embedding bank": f"{index.num_clips * method.projection_dim * 2 / 1e6:,.1f} MB",
        }

    def make_labels(self, run_uri: str, index: ClipIndex, statistics: Statistics) -> None:
        """See :class:`Stage`; there are none."""

    def build_method(self, run_uri: str) -> Method:
        """See :class:`Stage`."""
        return build_pretraining(self.config)

    def rehearse(self, index: ClipIndex) -> tuple[Method, Sequence[int]]:
        """See :class:`Stage`."""
        return self.build_method(""), self._num_clusters

    @property
    def _num_clusters(self) -> Sequence[int]:
        """K of each head; none where nothing is clustered."""
        return self.config.method.num_clusters if isinstance(self.config.method, DecarConfig) else ()


class Distillation:
    """UnFuSeD: pseudo-labels of the target's clips are made once, by a frozen teacher."""

    def __init__(self, config: DistillConfig) -> None:
        self.config = config

    def check(self, index: ClipIndex, known: Mapping[str, Any]) -> dict[str, Any]:
        """See :class:`Stage`."""
        config, labels = self.config, self.config.labels
        cut = config.method.cut
        refuse_large_student(_num_parameters(config, cut), cut, f"method.cut={cut}")
        if labels.origin == "true":
            if not any(index.column("labels")):
                raise ValueError("labels.origin=true needs labelled clips: " + ", ".join(config.data) + " has no label")
            return {}
        _refuse_many_clusters("labels.num_clusters", labels.num_clusters, index)
        if labels.origin == "random":
            return {}
        if not config.teacher:
            raise ValueError("teacher= is empty: give the folder of a pre-training run or of an exported encoder")
        if "teacher_sha256" in known and find_export(config.teacher) is None:
            return {"teacher_sha256": known["teacher_sha256"]}  # gone, but its labels are made
        teacher = read_description(config.teacher)
        rate, ours = teacher["front_end"]["sample_rate"], config.front_end.sample_rate
        if rate != ours:
            raise ValueError(f"teacher={config.teacher} hears {rate} Hz, front_end.sample_rate={ours}: they must agree")
        return {"teacher_sha256": teacher["sha256"]}

    def describe(self, index: ClipIndex) -> dict[str, str]:
        """See :class:`Stage`."""
        labels, method = self.config.labels, self.config.method
        count, whole = (_num_parameters(self.config, cut) for cut in (method.cut, self.config.encoder.cut))
        clusters = " + ".join(map(str, labels.num_clusters))
        return {
            "pseudo-labels": "the true classes" if labels.origin == "true" else f"{labels.origin}, {clusters} clusters",
            "student": f"up to {method.cut}, {count:,} of {whole:,} parameters",
        }

    def make_labels(self, run_uri: str, index: ClipIndex, statistics: Statistics) -> None:
        """See :class:`Stage`."""
        folder = storage.join(run_uri, PSEUDO_LABELS)
        if storage.exists(storage.join(folder, MANIFEST)):
            return
        if self.config.labels_of:
            write_assignment(folder, read_assignment(storage.join(self.config.labels_of, PSEUDO_LABELS)))
            return
        classes = labels_to_ids(index.column("labels"))[0]
        assignment = self._assign(index, statistics, classes)
        figures = pseudo_labels.agreement_with(assignment, classes)
        write_assignment(folder, replace(assignment, health={**assignment.health, **figures}))

    def build_method(self, run_uri: str) -> Method:
        """See :class:`Stage`; as many logits as the labels have clusters."""
        assignment = read_assignment(storage.join(run_uri, PSEUDO_LABELS))
        return self._of_classes([len(prototypes) for prototypes in assignment.prototypes])

    def rehearse(self, index: ClipIndex) -> tuple[Method, Sequence[int]]:
        """See :class:`Stage`."""
        labels = self.config.labels
        num_classes: Sequence[int] = labels.num_clusters
        if labels.origin == "true":
            num_classes = [len(labels_to_ids(index.column("labels"))[1])]
        return self._of_classes(num_classes), num_classes

    def _of_classes(self, num_classes: Sequence[int]) -> Unfused:
        return Unfused(self.config.method, self.config.encoder, self.config.front_end.num_mels, num_classes)

    def _assign(self, index: ClipIndex, statistics: Statistics, classes: np.ndarray) -> Assignment:
        config, labels = self.config, self.config.labels
        if labels.origin == "true":
            return pseudo_labels.of_classes(classes)
        threads = set_threads(config.runtime, 1)
        if labels.origin == "random":
            # Of another seed than the network that is distilled: that would be labelled by itself.
            encoder = random_encoder(config.encoder, config.front_end, config.crop, index, statistics, config.seed + 1)
        else:
            teacher = load_encoder(config.teacher)
            # Short clips are completed by the student's rule: both should hear the same.
            encoder = FrozenEncoder(teacher.encoder, teacher.log_mel, config.crop)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with Progress("labelling", index.num_clips, "clips") as bar:
            layers = embed_clips(encoder.to(device), index, np.arange(index.num_clips), bar.update)
        embeddings = read_out(layers, encoder.encoder.config.cut, labels.readout)
        assignment = pseudo_labels.cluster(embeddings, labels, config.seed, threads)
        return pseudo_labels.shuffled(assignment, config.seed) if labels.origin == "shuffled" else assignment


def stage_of(config: TrainingConfig) -> Stage:
    """The stage that a configuration is of."""
    if isinstance(config, DistillConfig):
        return Distillation(config)
    assert isinstance(config, PretrainConfig)
    return Pretraining(config)


def _num_parameters(config: TrainingConfig, cut: Cut) -> int:
    """Of the encoder up to a layer."""
    return cost_of(config.encoder.replace(cut=cut), config.front_end)[0]


def _refuse_many_clusters(field: str, num_clusters: Sequence[int], index: ClipIndex) -> None:
    for clusters in num_clusters:
        if clusters > index.num_clips:
            sources = ", ".join(manifest.uri for manifest in index.manifests)
            raise ValueError(f"{field}={clusters} must not exceed the number of clips, {index.num_clips} in {sources}")
