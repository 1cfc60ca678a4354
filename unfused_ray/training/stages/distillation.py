"""Distillation (UnFuSeD): a student learns pseudo-labels of the target's clips, made once by a frozen teacher."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from unfused_ray import storage
from unfused_ray.audio.randomness import derived_seed
from unfused_ray.clustering import pseudo_labels
from unfused_ray.clustering.assignment import MANIFEST, Assignment, read_assignment, write_assignment
from unfused_ray.config import Cut, DistillConfig, PseudoLabelConfig
from unfused_ray.data.parts.executor import Executor
from unfused_ray.data.shards.format import Statistics
from unfused_ray.data.shards.index import ClipIndex, labels_to_ids
from unfused_ray.embedding.random_network import random_encoder
from unfused_ray.embedding.shards import embed_shards
from unfused_ray.methods.unfused import Unfused
from unfused_ray.models.cost import cost_of, refuse_large_student
from unfused_ray.models.export import find_export, load_encoder, read_description
from unfused_ray.models.frozen import FrozenEncoder
from unfused_ray.progress import Progress
from unfused_ray.runs.run import PSEUDO_LABELS
from unfused_ray.training.stages.stage import Stage, refuse_many_clusters
from unfused_ray.training.worker.device import set_threads

logger = logging.getLogger(__name__)


class Distillation(Stage):
    """The stage of a :class:`DistillConfig`, whose labels are fixed for the whole run."""

    def __init__(self, config: DistillConfig) -> None:
        self.config = config

    @property
    def seed_of_weights(self) -> int:
        """Seed of the student's first weights.

        It is derived, because a teacher that was trained with the run's seed began with that seed's weights. A student
        that began with them too scored 46.6 instead of 46.4 (docs/results.md, "First weights").
        """
        return derived_seed(self.config.seed, "student")

    def check(self, index: ClipIndex, known: Mapping[str, Any]) -> dict[str, Any]:
        """Return the teacher's checksum; refuse a student, a teacher or labels that cannot work."""
        config, labels = self.config, self.config.labels
        cut = config.method.cut
        refuse_large_student(self._num_parameters(cut), cut, f"method.cut={cut}")
        if labels.origin == "true":
            _refuse_unclear_classes(index, config.data)
            _warn_of_idle_labels(labels)
            return {}
        refuse_many_clusters("labels.num_clusters", labels.num_clusters, index)
        if labels.origin == "random":
            return {}
        if not config.teacher:
            raise ValueError("teacher= is empty: give the folder of a pre-training run or of an exported encoder")
        if "teacher_sha256" in known and find_export(config.teacher) is None:
            return {"teacher_sha256": known["teacher_sha256"]}  # the teacher is gone, but its labels are made
        teacher = read_description(config.teacher)
        rate, ours = teacher["front_end"]["sample_rate"], config.front_end.sample_rate
        if rate != ours:
            raise ValueError(f"teacher={config.teacher} needs {rate} Hz, front_end.sample_rate={ours}: they must agree")
        return {"teacher_sha256": teacher["sha256"]}

    def describe(self, index: ClipIndex) -> dict[str, str]:
        """Return the labels and the size of the student."""
        labels, method = self.config.labels, self.config.method
        count, whole = (self._num_parameters(cut) for cut in (method.cut, self.config.encoder.cut))
        clusters = " + ".join(map(str, labels.num_clusters))
        return {
            "pseudo-labels": _true_classes(index)
            if labels.origin == "true"
            else f"{labels.origin}, {clusters} clusters",
            "student": f"up to {method.cut}, {count:,} of {whole:,} parameters",
        }

    def make_labels(self, run_uri: str, index: ClipIndex, statistics: Statistics, executor: Executor) -> None:
        """Copy the labels of another run, or make them with the teacher."""
        folder = self.labels_folder(run_uri)
        if storage.exists(storage.join(folder, MANIFEST)):
            return
        if self.config.labels_of:
            write_assignment(folder, read_assignment(storage.join(self.config.labels_of, PSEUDO_LABELS)))
            return
        classes = labels_to_ids(index.column("labels"))[0]
        assignment = self._assign(index, statistics, classes, executor)
        figures = pseudo_labels.agreement_with(assignment, classes)
        write_assignment(folder, replace(assignment, health={**assignment.health, **figures}))

    def labels_folder(self, run_uri: str) -> str:
        """Return the folder of the pseudo-labels."""
        return storage.join(run_uri, PSEUDO_LABELS)

    def num_classes(self, index: ClipIndex) -> Sequence[int]:
        """Return the number of clusters of each head, or the number of true classes."""
        if self.config.labels.origin == "true":
            return [len(labels_to_ids(index.column("labels"))[1])]
        return self.config.labels.num_clusters

    def build_method(self, num_classes: Sequence[int]) -> Unfused:
        """Return UnFuSeD with a logit for each class."""
        return Unfused(self.config.method, self.config.encoder, self.config.front_end.num_mels, num_classes)

    def _assign(self, index: ClipIndex, statistics: Statistics, classes: np.ndarray, executor: Executor) -> Assignment:
        config, labels = self.config, self.config.labels
        if labels.origin == "true":
            return pseudo_labels.of_classes(classes)
        threads = set_threads(config.runtime, 1)
        if labels.origin == "random":
            # A teacher that was trained with this seed began with these weights; the student begins with others.
            encoder = random_encoder(config.encoder, config.front_end, config.crop, index, statistics, config.seed)
        else:
            teacher = load_encoder(config.teacher)
            # Short clips are completed by the student's rule, so that both networks hear the same.
            encoder = FrozenEncoder(teacher.encoder, teacher.log_mel, config.crop)
        with Progress("labelling", index.num_clips, "clips") as bar:
            embeddings = embed_shards(encoder, index, labels.readout, executor, bar.update)
        assignment = pseudo_labels.cluster(embeddings, labels, config.seed, threads)
        return pseudo_labels.shuffled(assignment, config.seed) if labels.origin == "shuffled" else assignment

    def _num_parameters(self, cut: Cut) -> int:
        """Return the number of parameters of the encoder up to a layer."""
        return cost_of(self.config.encoder.replace(cut=cut), self.config.front_end)[0]


def _warn_of_idle_labels(labels: PseudoLabelConfig) -> None:
    """Warn of settings of a clustering, perhaps a recipe's, that have no effect with true classes."""
    usual = PseudoLabelConfig()
    others = [name for name in type(labels).model_fields if name != "origin" and labels.get(name) != usual.get(name)]
    if others:
        named = ", ".join(f"labels.{name}={labels.get(name)}" for name in others)
        logger.warning("ignored, because labels.origin=true clusters nothing: %s", named)


def _refuse_unclear_classes(index: ClipIndex, data: Sequence[str]) -> None:
    """Raise ValueError if any clip has several labels, or if no clip has one."""
    labels = index.column("labels")
    if not any(labels):
        raise ValueError(f"labels.origin=true needs labelled clips: {', '.join(data)} has no label")
    if several := [place for place, of_clip in enumerate(labels) if len(of_clip) > 1]:
        key = index.column("key")[several[0]]
        raise ValueError(
            f"labels.origin=true needs one label a clip: {len(several):,} of the {len(labels):,} clips of "
            f"{', '.join(data)} have several, such as {key}: {', '.join(labels[several[0]])}"
        )


def _true_classes(index: ClipIndex) -> str:
    labels = index.column("labels")
    unlabelled = sum(not of_clip for of_clip in labels)
    return "the true classes" + (f"; {unlabelled:,} of {len(labels):,} clips have none" if unlabelled else "")
