"""The runtimes of a training: this process alone, or a Ray Train worker group."""

from __future__ import annotations

from unfused_ray.config import RuntimeConfig
from unfused_ray.training.runtimes.in_process import InProcess
from unfused_ray.training.runtimes.runtime import Runtime


def runtime_of(config: RuntimeConfig) -> Runtime:
    """The runtime that the settings name."""
    if config.kind == "in-process":
        return InProcess()
    from unfused_ray.training.runtimes.ray_train import RayTrain  # here: a training in this process needs no Ray

    return RayTrain()
