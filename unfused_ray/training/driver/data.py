"""Reads the manifests of a training's data without torch or Ray, so that bad settings are refused before either
starts."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass

from unfused_ray import paths
from unfused_ray.config import TrainingConfig
from unfused_ray.data.shards.format import refuse_other_rate
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.data.stream.plan import Planner
from unfused_ray.tracking.store import tracking_uri

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """A training's settings together with the data that they name."""

    config: TrainingConfig
    """Settings, with absolute paths."""
    index: ClipIndex
    planner: Planner
    tracking_uri: str


def read_data(config: TrainingConfig) -> TrainingData:
    """Resolve the paths and read the manifests.

    Raises:
        ValueError, FileNotFoundError: the data cannot be read or used; names field, value and rule.
    """
    config = paths.resolve(config)
    index = ClipIndex.load(config.data, config.splits)
    for uri, times in Counter(config.data).items():
        if times > 1:
            logger.warning("%s is named %d times: its clips are drawn that often in every epoch", uri, times)
    if config.optimizer.warmup_epochs >= config.epochs:
        logger.warning(
            "optimizer.warmup_epochs=%g takes all of epochs=%d: the learning rate only rises, and its peak, %g, comes "
            "with the last step",
            config.optimizer.warmup_epochs,
            config.epochs,
            config.optimizer.lr,
        )
    planner = Planner(index, config.seed, config.batch)
    refuse_other_rate(index.manifests, config.front_end.sample_rate, "front_end.sample_rate")
    return TrainingData(config, index, planner, tracking_uri(config.tracking))
