"""The runtimes of a training: this process alone, or a Ray Train worker group.

Actors that need neither, such as the coordinator, import modules of this package, so the package itself imports no
torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unfused_ray.config import RuntimeConfig

if TYPE_CHECKING:
    from unfused_ray.training.runtimes.runtime import Runtime


def runtime_of(config: RuntimeConfig) -> Runtime:
    """Return the runtime that the settings name."""
    if config.kind == "in-process":
        from unfused_ray.training.runtimes.in_process import InProcess

        return InProcess()
    from unfused_ray.training.runtimes.ray_train import RayTrain  # here: only worker groups need Ray

    return RayTrain()
