"""Writes a trained encoder to a folder of two files, and reads it back in three lines, without Ray.

::

    encoder = load_encoder("runs/decar-v2")
    student = load_student("runs/unfused")
    vectors = student.embed(wave, sample_rate)

In a run, the folder is called ``encoder`` or ``student``. It holds ``encoder.safetensors`` and, written after it,
``encoder.json``: everything needed to use the weights.
"""

from __future__ import annotations

import os
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from unfused_ray import storage
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import CropConfig, EncoderConfig, FrontEndConfig
from unfused_ray.models.cost import num_parameters, refuse_large_student
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.models.frozen import FrozenEncoder

FORMAT_VERSION = 1
WEIGHTS = "encoder.safetensors"
DESCRIPTION = "encoder.json"
_FOLDERS = ("encoder", "student")
"""Names of a run's export folder, for a pre-training and for a distillation."""


def save_encoder(
    uri: str,
    encoder: AudioNTT2020,
    front_end: FrontEndConfig,
    crop: CropConfig,
    mean: float,
    std: float,
    extra: dict[str, Any],
) -> None:
    """Write an encoder to the folder ``uri``, local or remote. The description is written last: it marks it as whole.

    Args:
        uri: folder; an existing export is replaced.
        encoder: the network.
        front_end, crop: settings it was trained with.
        mean, std: the log-mel statistics its inputs were normalised with.
        extra: its origin, as values that JSON can hold.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()}
    weights = safetensors.torch.save(tensors)
    description = {
        "sha256": storage.sha256(weights),
        "encoder": encoder.config.model_dump(mode="json"),
        "num_parameters": num_parameters(encoder),
        "front_end": front_end.model_dump(mode="json"),
        "crop": crop.model_dump(mode="json"),
        "mean": mean,
        "std": std,
        "extra": extra,
    }
    storage.write_bytes(storage.join(uri, WEIGHTS), weights)
    storage.write_json(storage.join(uri, DESCRIPTION), description, FORMAT_VERSION)


def find_export(uri: str) -> str | None:
    """Return the folder of an exported encoder: ``uri`` itself, or one in the run at ``uri``; None if there is none."""
    folders = (uri, *(storage.join(uri, name) for name in _FOLDERS))
    return next((folder for folder in folders if storage.exists(storage.join(folder, DESCRIPTION))), None)


def run_of(uri: str) -> str:
    """Return the run in which an export lies; ``uri`` itself if its name is not that of an export's folder.

    Only names are compared, because the run may be gone. So for a run called ``student``, the parent folder is
    returned.
    """
    return storage.parent(uri) if storage.name(uri) in _FOLDERS else uri


def read_description(uri: str) -> dict[str, Any]:
    """Return the description in the export that :func:`find_export` finds at ``uri``; ``folder`` is its folder.

    Raises:
        FileNotFoundError: there is no export.
        ValueError: it was written by another version.
    """
    folder = find_export(uri)
    if folder is None:
        raise FileNotFoundError(
            f"{uri} holds no {DESCRIPTION}: it is not an exported encoder, nor a run that has finished. A run writes "
            f"its export to its folder {' or '.join(map(repr, _FOLDERS))}"
        )
    path = storage.join(folder, DESCRIPTION)
    description = storage.read_json(path, FORMAT_VERSION, "export the encoder again")
    return {**description, "folder": folder}


def load_encoder(uri: str | os.PathLike[str]) -> FrozenEncoder:
    """Read an exported encoder; ``uri`` is its folder or that of its run, local or remote.

    Raises:
        FileNotFoundError: there is no export.
        ValueError: ``uri`` names no folder, the export was written by another version, or its weights are not those
            described.
    """
    if not isinstance(uri, str | os.PathLike) or not (text := os.fspath(uri)):
        raise ValueError(f"{uri!r} names no encoder: give the folder of a run or of its export, by path or URI")
    description = read_description(text)
    folder = description["folder"]
    weights = storage.read_bytes(storage.join(folder, WEIGHTS))
    if storage.sha256(weights) != description.get("sha256"):
        raise ValueError(f"{folder}: {WEIGHTS} is not the file that {DESCRIPTION} describes: copy or export it again")
    try:
        return _build(description, weights)
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"{folder}: {DESCRIPTION} and {WEIGHTS} are no encoder ({type(error).__name__}: {error}): "
            "copy it again, or export it again"
        ) from error


def _build(description: dict[str, Any], weights: bytes) -> FrozenEncoder:
    front_end = FrontEndConfig(**description["front_end"])
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are replaced at once
        encoder = AudioNTT2020(EncoderConfig(**description["encoder"]), front_end.num_mels)
    encoder.load_state_dict(safetensors.torch.load(weights), strict=True)
    log_mel = LogMel(front_end, description["mean"], description["std"])
    return FrozenEncoder(encoder, log_mel, CropConfig(**description["crop"]), description["extra"])


def load_student(uri: str | os.PathLike[str]) -> FrozenEncoder:
    """Read the student of a distillation; ``uri`` is its folder or that of its run, local or remote.

    Raises:
        FileNotFoundError: there is no export.
        ValueError: as in :func:`load_encoder`, or the network is too large for a student.
    """
    student = load_encoder(uri)
    refuse_large_student(num_parameters(student.encoder), student.encoder.config.cut, os.fspath(uri))
    return student
