"""Training stages: the checks, labels and method of each, from the driver's side."""

from __future__ import annotations

from unfused_ray.config import DistillConfig, PretrainConfig, TrainingConfig
from unfused_ray.training.stages.distillation import Distillation
from unfused_ray.training.stages.pretraining import Pretraining
from unfused_ray.training.stages.stage import Stage


def stage_of(config: TrainingConfig) -> Stage:
    """Return the stage of a configuration."""
    if isinstance(config, DistillConfig):
        return Distillation(config)
    assert isinstance(config, PretrainConfig)
    return Pretraining(config)
