"""The runtimes of a training: this process alone, or a Ray Train worker group.

Actors that need neither import modules of this package, such as the coordinator: it imports no torch by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unfused_ray.config import RuntimeConfig

if TYPE_CHECKING:
    from unfused_ray.training.runtimes.runtime import Runtime


def runtime_of(config: RuntimeConfig) -> Runtime:
    """The runtime that the settings name."""
    if config.kind == "in-process":
        from unfused_ray.training.runtimes.in_process import InProcess

        return InProcess()
    from unfused_ray.training.runtimes.ray_train import RayTrain  # here: a training in this process needs no Ray

    return RayTrain()
