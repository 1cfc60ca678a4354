"""The interface of a training stage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unfused_ray.clustering.rows import random_unit_rows
from unfused_ray.data.parts.executor import Executor
from unfused_ray.data.shards.format import Statistics
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.methods.method import ClusteringRequest, Method


class Stage(ABC):
    """Checks, labels and method of a training stage."""

    @property
    @abstractmethod
    def seed_of_weights(self) -> int:
        """Seed of the weights that a run begins with."""

    @property
    def clustering(self) -> ClusteringRequest | None:
        """The clustering before each epoch; None if there is none."""
        return None

    @abstractmethod
    def check(self, index: ClipIndex, known: Mapping[str, Any]) -> dict[str, Any]:
        """Return facts beyond the configuration that must not change during a run.

        Args:
            index: clips of the run.
            known: facts of the run, if it has begun.

        Raises:
            ValueError, FileNotFoundError: the settings cannot work; names field, value and rule.
        """

    @abstractmethod
    def describe(self, index: ClipIndex) -> dict[str, str]:
        """Return facts worth knowing before a run begins, by heading."""

    def make_labels(  # noqa: B027 - not every stage has fixed labels
        self, run_uri: str, index: ClipIndex, statistics: Statistics, executor: Executor
    ) -> None:
        """Make the labels that are fixed for the whole run, if there are any and the run lacks them.

        Args:
            run_uri: folder of the run.
            index: clips of the run.
            statistics: statistics of their log-mels.
            executor: embeds the clips; it is open.
        """

    def labels_folder(self, run_uri: str) -> str | None:
        """Return the folder of the labels that are fixed for the whole run; None if there are none."""
        return None

    @abstractmethod
    def num_classes(self, index: ClipIndex) -> Sequence[int]:
        """Return the number of classes of each head of labels, known before any are made."""

    @abstractmethod
    def build_method(self, num_classes: Sequence[int]) -> Method:
        """Return the method with random weights, for labels with these numbers of classes, one per head."""

    def begun_method(self, index: ClipIndex) -> Method:
        """Return the method in an epoch, with random weights and prototypes, to measure what a run would cost."""
        num_classes, clustering = self.num_classes(index), self.clustering
        method = self.build_method(num_classes)
        if clustering is not None:
            rng = np.random.default_rng(self.seed_of_weights)
            method.begin_epoch([random_unit_rows(rng, clusters, clustering.dim) for clusters in num_classes])
        return method.train()


def refuse_many_clusters(field: str, num_clusters: Sequence[int], index: ClipIndex) -> None:
    """Refuse a clustering into more clusters than there are clips.

    Raises:
        ValueError: there are too few clips; names the field.
    """
    for clusters in num_clusters:
        if clusters > index.num_clips:
            sources = ", ".join(manifest.uri for manifest in index.manifests)
            raise ValueError(f"{field}={clusters} must not exceed the number of clips, {index.num_clips} in {sources}")
