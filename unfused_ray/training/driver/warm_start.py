"""Begins a run with the weights of another run or export, or as a fork of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unfused_ray import storage
from unfused_ray.clustering.assignment import MANIFEST
from unfused_ray.config import DistillConfig, EncoderConfig, PretrainConfig, TrainingConfig, differences, within
from unfused_ray.models.export import find_export, load_encoder, read_description
from unfused_ray.runs.checkpoints import Checkpoint, CheckpointStore
from unfused_ray.runs.resume import ResumePoint, find_fork_point
from unfused_ray.runs.run import PSEUDO_LABELS, Run

_ENCODER_SHAPES = ("encoder.channels", "encoder.width", "encoder.cut", "front_end.num_mels")
_NOT_CARRIED = ("method.queue",)
"""Sizes that may differ in a warm start: a queue holds keys of other clips."""
_LABEL_FACTS = ("data_checksums", "teacher_sha256")
"""Facts that, beside the settings, determine the labels of a distillation."""


def check_origin(config: TrainingConfig, facts: Mapping[str, Any]) -> ResumePoint | None:
    """Refuse to begin a run from a folder without weights to begin from, or with weights that do not fit.

    Args:
        config: settings of the run that is to begin.
        facts: facts of its data.

    Returns:
        The checkpoint to fork from; None if the run is not a fork.

    Raises:
        FileNotFoundError: ``fork`` holds no checkpoint, ``init_from`` neither checkpoint nor export, or ``labels_of``
            no labels.
        ValueError: the weights have other shapes, a fork would have no epoch left, or the labels are of other settings.
    """
    if isinstance(config, DistillConfig) and config.labels_of:
        _refuse_other_labels(config, facts)
    if config.init_from:
        _check_warm_start(config)
    return _check_fork(config, facts) if config.fork else None


def _check_fork(config: TrainingConfig, facts: Mapping[str, Any]) -> ResumePoint:
    fork_point = find_fork_point(config.fork)
    record = Run(config.fork).record()
    if record["stage"] != config.stage:
        raise ValueError(f"fork={config.fork} is a run of stage {record['stage']}, this one is of {config.stage}")
    shapes = (*_method_shapes(config), "optimizer.name", "ema_decay")
    _refuse_misfit("fork", config.fork, record["config"], config, shapes)
    if config.stage == "distill":  # its heads classify into the other run's labels
        _refuse_changes(f"fork={config.fork} was trained on other labels", record["facts"], facts, _LABEL_FACTS)
    epoch = fork_point.checkpoint.position.epoch
    if epoch >= config.last_epoch:
        flag = config.ends_by.replace("_", "-")
        raise ValueError(
            f"{config.ends_by}={config.last_epoch} leaves nothing to train: fork={config.fork} has {epoch} epochs "
            f"behind it. Give --{flag} {epoch + 1} or more, or start from its weights by --init-from"
        )
    return fork_point


def _check_warm_start(config: TrainingConfig) -> None:
    source = config.init_from
    if CheckpointStore(source).committed():
        record = Run(source).record()
        shapes = _method_shapes(config) if _takes_all(record, config) else _ENCODER_SHAPES
        shapes = tuple(name for name in shapes if name not in _NOT_CARRIED)
        _refuse_misfit("init_from", source, record["config"], config, shapes)
        return
    if find_export(source) is None:
        raise FileNotFoundError(
            f"init_from={source} holds no checkpoint: give the folder of a run or of an exported encoder"
        )
    description = read_description(source)
    description["encoder"] = EncoderConfig(**description["encoder"]).model_dump(mode="json")
    _refuse_misfit("init_from", source, description, config, _ENCODER_SHAPES)


def _refuse_other_labels(config: DistillConfig, facts: Mapping[str, Any]) -> None:
    """Refuse pseudo-labels that this run would have made differently."""
    source = config.labels_of
    if not storage.exists(storage.join(source, PSEUDO_LABELS, MANIFEST)):
        raise FileNotFoundError(f"labels_of={source} holds no pseudo-labels: give the folder of a distillation")
    record = Run(source).record()
    shape = ("encoder",) if config.labels.origin == "random" else ()  # a random network of its shape has made them
    names = ("labels", "crop", "front_end", "splits", "seed", *shape, *_LABEL_FACTS)
    theirs, ours = {**record["config"], **record["facts"]}, {**config.model_dump(mode="json"), **facts}
    _refuse_changes(f"labels_of={source} has other pseudo-labels", theirs, ours, names)


def warm_start(config: TrainingConfig) -> tuple[dict[str, dict[str, Tensor]], Checkpoint | None]:
    """Return the weights to begin with, by module of the method, and the checkpoint that they come from, if any.

    A run gives the weights of its newest checkpoint: those of the whole method (key '') if both runs are pre-trainings
    with this method, otherwise those of the encoder. An exported encoder gives its own weights.
    """
    if not config.init_from:
        return {}, None
    checkpoint = CheckpointStore(config.init_from).newest()
    if checkpoint is None:
        return {"encoder": load_encoder(config.init_from).encoder.state_dict()}, None
    tensors = checkpoint.tensors("model")
    if _takes_all(Run(config.init_from).record(), config):
        return {"": tensors}, checkpoint
    prefix = "encoder."
    encoder = {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
    return {"encoder": encoder}, checkpoint


def _takes_all(record: Mapping[str, Any], config: TrainingConfig) -> bool:
    """Return True if the heads are loaded as well as the encoder; a distillation's heads fit only its own labels."""
    return (
        isinstance(config, PretrainConfig)
        and record["stage"] == config.stage
        and record["config"]["method"]["kind"] == config.method.kind
    )


def _method_shapes(config: TrainingConfig) -> tuple[str, ...]:
    """Return the settings that decide whether a whole method's weights fit: their shapes, and the order of classes."""
    if isinstance(config, PretrainConfig):
        return (*_ENCODER_SHAPES, "method.kind", *(f"method.{name}" for name in config.method.shapes))
    return (*_ENCODER_SHAPES, "method.head_hidden", "labels", "crop", "splits", "seed")


def _refuse_misfit(
    field: str, source: str, theirs: Mapping[str, Any], config: TrainingConfig, names: tuple[str, ...]
) -> None:
    """Refuse weights that were trained with other settings of these names."""
    _refuse_changes(f"{field}={source} has weights that do not fit", theirs, config.model_dump(mode="json"), names)


def _refuse_changes(refusal: str, theirs: Mapping[str, Any], ours: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Refuse settings and facts of these names that differ."""
    if changes := [line for name, line in differences(theirs, ours).items() if within(name, names)]:
        raise ValueError(f"{refusal}:\n  " + "\n  ".join(changes))
