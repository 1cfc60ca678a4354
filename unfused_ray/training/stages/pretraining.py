"""Pre-training: any method of ``METHODS`` on clips without labels of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unfused_ray.config import PretrainConfig
from unfused_ray.data.shards.format import Statistics
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.methods import METHODS
from unfused_ray.methods.method import ClusteringRequest, Method
from unfused_ray.training.stages.stage import refuse_many_clusters


class Pretraining:
    """A :class:`Stage` whose labels, if its method has any, are clustered anew each epoch."""

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config

    @property
    def clustering(self) -> ClusteringRequest | None:
        """The clustering that the method asks for."""
        return METHODS[self.config.method.kind].clustering(self.config.method)

    def check(self, index: ClipIndex, known: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse more clusters than clips; there are no further facts."""
        refuse_many_clusters("method.num_clusters", self.num_classes(index), index)
        return {}

    def describe(self, index: ClipIndex) -> dict[str, str]:
        """The method, or its clusters and the size of its bank."""
        clustering = self.clustering
        if clustering is None:
            return {"method": self.config.method.kind}
        return {
            "clusters": " + ".join(map(str, clustering.num_clusters)),
            "embedding bank": f"{index.num_clips * clustering.dim * 2 / 1e6:,.1f} MB",
        }

    def make_labels(self, run_uri: str, index: ClipIndex, statistics: Statistics) -> None:
        """Make nothing: no labels are fixed for the whole run."""

    def labels_folder(self, run_uri: str) -> str | None:
        """None: no labels are fixed for the whole run."""
        return None

    def num_classes(self, index: ClipIndex) -> Sequence[int]:
        """Clusters of each head."""
        clustering = self.clustering
        return clustering.num_clusters if clustering else ()

    def build_method(self, num_classes: Sequence[int]) -> Method:
        """The method of the configuration; its weights do not depend on the number of classes."""
        config = self.config
        return METHODS[config.method.kind](config.method, config.encoder, config.front_end.num_mels)
