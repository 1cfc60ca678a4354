"""Pre-training with any method of ``METHODS``. Its labels, if it has any, are clustered anew each epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unfused_ray.config import PretrainConfig
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.methods import METHODS
from unfused_ray.methods.method import ClusteringRequest, Method
from unfused_ray.training.stages.stage import Stage, refuse_many_clusters


class Pretraining(Stage):
    """The stage of a :class:`PretrainConfig`."""

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config

    @property
    def seed_of_weights(self) -> int:
        """Seed of the weights that a run begins with: the run's."""
        return self.config.seed

    @property
    def clustering(self) -> ClusteringRequest | None:
        """The clustering that the method asks for."""
        return METHODS[self.config.method.kind].clustering(self.config.method)

    def check(self, index: ClipIndex, known: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse more clusters than clips; return no further facts."""
        refuse_many_clusters("method.num_clusters", self.num_classes(index), index)
        return {}

    def describe(self, index: ClipIndex) -> dict[str, str]:
        """Return the method, or its clusters and the size of its bank."""
        if self.clustering is None:
            return {"method": self.config.method.kind}
        return {
            "clusters": " + ".join(map(str, self.clustering.num_clusters)),
            "embedding bank": f"{index.num_clips * self.clustering.dim * 2 / 1e6:,.1f} MB",
        }

    def num_classes(self, index: ClipIndex) -> Sequence[int]:
        """Return the number of clusters of each head."""
        return self.clustering.num_clusters if self.clustering else ()

    def build_method(self, num_classes: Sequence[int]) -> Method:
        """Return the method of the configuration; none of its weights depends on the number of classes."""
        config = self.config
        return METHODS[config.method.kind](config.method, config.encoder, config.front_end.num_mels)
