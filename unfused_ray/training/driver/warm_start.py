"""Where a run begins: at random weights, at the weights of another run or export, or as the fork of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unfused_ray import storage
from unfused_ray.clustering.assignment import MANIFEST
from unfused_ray.config import DistillConfig, EncoderConfig, PretrainConfig, TrainingConfig, differences, within
from unfused_ray.models.export import find_export, load_encoder, read_description
from unfused_ray.runs.checkpoints import CheckpointStore
from unfused_ray.runs.run import PSEUDO_LABELS, Run

_ENCODER_SHAPES = ("encoder.channels", "encoder.width", "encoder.cut", "front_end.num_mels")
_NOT_CARRIED = ("method.queue",)
"""Sizes of what a warm start leaves behind: keys of other clips."""
_MISFIT = "has weights that do not fit"
_LABEL_FACTS = ("data_checksums", "teacher_sha256")
"""What else decides the labels of a distillation."""


def check_origin(config: TrainingConfig, facts: Mapping[str, Any]) -> None:
    """Refuse to begin a run from a folder that holds nothing to begin from, or whose weights do not fit.

    Args:
        config: of the run that is to begin.
        facts: of its data.

    Raises:
        FileNotFoundError: ``fork`` or ``init_from`` holds no checkpoint, and no export either; ``labels_of`` no labels.
        ValueError: its weights are of other shapes, a fork would have no epoch left, or the labels are of other
            settings.
    """
    if isinstance(config, DistillConfig) and config.labels_of:
        _refuse_other_labels(config, facts)
    ours = config.model_dump(mode="json")
    if config.fork:
        newest = CheckpointStore(config.fork, keep=1).newest()
        if newest is None:
            raise FileNotFoundError(f"fork={config.fork} holds no checkpoint: give the folder of a run")
        record = Run(config.fork).record()
        if record["stage"] != config.stage:
            raise ValueError(f"fork={config.fork} is a run of stage {record['stage']}, this one is of {config.stage}")
        shapes = (*_method_shapes(config), "optimizer.name", "ema_decay")
        _refuse_changes(f"fork={config.fork} {_MISFIT}", record["config"], ours, shapes)
        if config.stage == "distill":  # its heads tell the labels of the other run apart
            _refuse_changes(f"fork={config.fork} has learnt other labels", record["facts"], facts, _LABEL_FACTS)
        if newest.position.epoch >= config.epochs:
            raise ValueError(
                f"epochs={config.epochs} leaves nothing to train: fork={config.fork} has {newest.position.epoch} "
                f"epochs behind it. Give --epochs {newest.position.epoch + 1} or more, or start from its weights by "
                "--init-from"
            )
    if config.init_from and CheckpointStore(config.init_from, keep=1).committed():
        record = Run(config.init_from).record()
        shapes = _method_shapes(config) if _takes_all(record, config) else _ENCODER_SHAPES
        shapes = tuple(name for name in shapes if name not in _NOT_CARRIED)
        _refuse_changes(f"init_from={config.init_from} {_MISFIT}", record["config"], ours, shapes)
    elif config.init_from:
        if find_export(config.init_from) is None:
            raise FileNotFoundError(
                f"init_from={config.init_from} holds no checkpoint: give the folder of a run or of an exported encoder"
            )
        description = read_description(config.init_from)
        description["encoder"] = EncoderConfig(**description["encoder"]).model_dump(mode="json")
        _refuse_changes(f"init_from={config.init_from} {_MISFIT}", description, ours, _ENCODER_SHAPES)


def _refuse_other_labels(config: DistillConfig, facts: Mapping[str, Any]) -> None:
    """Refuse pseudo-labels that this run would not have made itself."""
    source = config.labels_of
    if not storage.exists(storage.join(source, PSEUDO_LABELS, MANIFEST)):
        raise FileNotFoundError(f"labels_of={source} holds no pseudo-labels: give the folder of a distillation")
    record = Run(source).record()
    shape = ("encoder",) if config.labels.origin == "random" else ()  # a network of its shape has made them
    names = ("labels", "crop", "front_end", "splits", "seed", *shape, *_LABEL_FACTS)
    theirs, ours = {**record["config"], **record["facts"]}, {**config.model_dump(mode="json"), **facts}
    _refuse_changes(f"labels_of={source} has other pseudo-labels", theirs, ours, names)


def warm_start(config: TrainingConfig) -> dict[str, dict[str, Tensor]]:
    """Weights to begin with, by module of the method.

    From a run's newest checkpoint the whole method's (key '') where both are pre-training with it, otherwise the
    encoder's; or those of an exported encoder.
    """
    if not config.init_from:
        return {}
    checkpoint = CheckpointStore(config.init_from, keep=1).newest()
    if checkpoint is None:
        return {"encoder": load_encoder(config.init_from).encoder.state_dict()}
    tensors = checkpoint.tensors("model")
    if _takes_all(Run(config.init_from).record(), config):
        return {"": tensors}
    prefix = "encoder."
    return {"encoder": {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}}


def _takes_all(record: Mapping[str, Any], config: TrainingConfig) -> bool:
    """Whether a warm start takes heads too: those of the same method, but a distillation's are of its own labels."""
    return (
        isinstance(config, PretrainConfig)
        and record["stage"] == config.stage
        and record["config"]["method"]["kind"] == config.method.kind
    )


def _method_shapes(config: TrainingConfig) -> tuple[str, ...]:
    """Settings that decide what a whole method's weights fit: their shapes, and which class is which."""
    if isinstance(config, PretrainConfig):
        return (*_ENCODER_SHAPES, "method.kind", *(f"method.{name}" for name in config.method.shapes))
    return (*_ENCODER_SHAPES, "method.head_hidden", "labels", "crop", "splits", "seed")


def _refuse_changes(refusal: str, theirs: Mapping[str, Any], ours: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Compare the settings and facts of these names."""
    if changes := [line for name, line in differences(theirs, ours).items() if within(name, names)]:
        raise ValueError(f"{refusal}:\n  " + "\n  ".join(changes))
