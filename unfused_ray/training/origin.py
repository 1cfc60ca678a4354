"""Where a run begins: at random weights, at the weights of another run or export, or as the fork of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unfused_ray import storage
from unfused_ray.config import PretrainConfig
from unfused_ray.models.export import DESCRIPTION, load_encoder
from unfused_ray.training.checkpoint import CheckpointStore
from unfused_ray.training.run import Run, differences

_ENCODER_SHAPES = ("encoder.channels", "encoder.width", "front_end.num_mels")
_METHOD_SHAPES = (*_ENCODER_SHAPES, "method.projection_hidden", "method.projection_dim")


def check_origin(config: PretrainConfig) -> None:
    """Refuse to begin a run from a folder that holds nothing to begin from, or whose weights do not fit.

    Raises:
        FileNotFoundError: ``fork`` or ``init_from`` holds no checkpoint, and no export either.
        ValueError: its weights are of other shapes, or a fork would have no epoch left.
    """
    if config.fork:
        newest = CheckpointStore(config.fork, keep=1).newest()
        if newest is None:
            raise FileNotFoundError(f"fork={config.fork} holds no checkpoint: give the folder of a run")
        _refuse_changes("fork", config.fork, Run(config.fork).record()["config"], config, "optimizer.name")
        if newest.position.epoch >= config.epochs:
            raise ValueError(
                f"epochs={config.epochs} leaves nothing to train: fork={config.fork} has {newest.position.epoch} "
                f"epochs behind it. Give --epochs {newest.position.epoch + 1} or more, or start from its weights by "
                "--init-from"
            )
    if config.init_from and CheckpointStore(config.init_from, keep=1).committed():
        _refuse_changes("init_from", config.init_from, Run(config.init_from).record()["config"], config)
    elif config.init_from:
        description = storage.join(config.init_from, DESCRIPTION)
        if not storage.exists(description):
            raise FileNotFoundError(
                f"init_from={config.init_from} holds no checkpoint: give the folder of a run or of an exported encoder"
            )
        _refuse_changes("init_from", config.init_from, json.loads(storage.read_bytes(description)), config)


def warm_start(config: PretrainConfig) -> dict[str, dict[str, Tensor]]:
    """Weights to begin with: the whole method's (key '') of a run's newest checkpoint, or an exported encoder's."""
    if not config.init_from:
        return {}
    checkpoint = CheckpointStore(config.init_from, keep=1).newest()
    if checkpoint is not None:
        return {"": checkpoint.tensors("model")}
    return {"encoder": load_encoder(config.init_from).encoder.state_dict()}


def _refuse_changes(field: str, source: str, theirs: Mapping[str, Any], config: PretrainConfig, *more: str) -> None:
    """Compare the settings that decide the shapes of what ``field`` loads; an export has no method."""
    names = (*(_METHOD_SHAPES if "method" in theirs else _ENCODER_SHAPES), *more)
    if changes := differences(_chosen(theirs, names), _chosen(config.model_dump(mode="json"), names)):
        raise ValueError(f"{field}={source} has weights of other shapes:\n  " + "\n  ".join(changes))


def _chosen(tree: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: tree[name.partition(".")[0]][name.partition(".")[2]] for name in names}
