"""Makes the files of an export in each form, reads them back, and compares them with the encoder."""

from __future__ import annotations

import io
import json

import numpy as np
import safetensors.torch
import torch

from unfused_ray import storage
from unfused_ray.config import ExportConfig
from unfused_ray.evaluation.onnx_embedder import OnnxEmbedder
from unfused_ray.exports import card, hub_folder, onnx_file, torch_folder
from unfused_ray.exports.agreement import Agreement, compare
from unfused_ray.exports.convert import settings
from unfused_ray.exports.plan import ExportPlan
from unfused_ray.models.portable import PortableEncoder

TOLERANCE = 1e-3
"""Largest difference, in standard deviations, with which an export is written; 8-bit weights have no limit."""
Made = tuple[dict[str, bytes], dict[str, Agreement]]
"""Contents of the files by name, and the agreement of files with weights with the encoder."""


def file_names(config: ExportConfig) -> tuple[str, ...]:
    """Return the names of the files that an export writes, without its record."""
    if config.to == "onnx":
        return onnx_file.FILE, *([onnx_file.INT8_FILE] if config.int8 else ())
    shared = torch_folder.CODE, torch_folder.CONFIG, torch_folder.WEIGHTS
    if config.to == "torch":
        return *shared, *([torch_folder.PROGRAM] if config.program else ())
    return *shared, *hub_folder.FILES, hub_folder.CARD


def make_onnx(plan: ExportPlan, network: PortableEncoder, waves: list[np.ndarray]) -> Made:
    """Make the ONNX file and, if requested, the one with 8-bit weights."""
    models = {onnx_file.FILE: (model := onnx_file.build(network))}
    if plan.config.int8:
        models[onnx_file.INT8_FILE] = onnx_file.with_int8_weights(model)
    files: dict[str, bytes] = {}
    checks: dict[str, Agreement] = {}
    for name, each in models.items():
        uri = storage.join(plan.output, name)
        metadata = {**plan.metadata, "weights": "float32" if each is model else "int8"}
        found = compare(plan.encoder, OnnxEmbedder(uri, onnx_file.with_metadata(each, metadata)).run, waves)
        if each is model:
            _refuse_different(uri, found)
        metadata |= {"max_difference": f"{found.max_difference:.3g} of the standard deviation of the vectors' numbers"}
        metadata |= {"checked_on": f"{found.num_clips} clips: {found.text}"}
        files[name] = onnx_file.with_metadata(each, metadata)
        checks[name] = found
    return files, checks


def make_torch(plan: ExportPlan, network: PortableEncoder, waves: list[np.ndarray]) -> Made:
    """Make the folder for torch and, if requested, the program."""
    files = torch_folder.files(network, settings(plan.encoder))
    read = PortableEncoder(**json.loads(files[torch_folder.CONFIG]))
    read.load_state_dict(safetensors.torch.load(files[torch_folder.WEIGHTS]))
    checks = {torch_folder.WEIGHTS: _compare(plan, read, waves, torch_folder.WEIGHTS)}
    if plan.config.program:
        files[torch_folder.PROGRAM] = torch_folder.program(network)
        module = torch.export.load(io.BytesIO(files[torch_folder.PROGRAM])).module()
        checks[torch_folder.PROGRAM] = _compare(plan, module, waves, torch_folder.PROGRAM)
    return files, checks


def make_hub(plan: ExportPlan, network: PortableEncoder, waves: list[np.ndarray]) -> Made:
    """Make the folder for the hub; its card states how well the weights agree."""
    files = hub_folder.files(network, settings(plan.encoder))
    read = torch.nn.ModuleDict({"encoder": PortableEncoder(**json.loads(files[torch_folder.CONFIG])["encoder"])})
    read.load_state_dict(safetensors.torch.load(files[torch_folder.WEIGHTS]))
    found = _compare(plan, read["encoder"], waves, torch_folder.WEIGHTS)
    config = plan.config.replace(output=plan.output)
    files[hub_folder.CARD] = card.write(config, plan.encoder, plan.description, plan.results, found)
    return files, {torch_folder.WEIGHTS: found}


def _compare(plan: ExportPlan, module: torch.nn.Module, waves: list[np.ndarray], name: str) -> Agreement:
    def exported(wave_BT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        vectors, frames = module(torch.from_numpy(wave_BT))
        return vectors.numpy(), frames.numpy()

    found = compare(plan.encoder, exported, waves)
    _refuse_different(storage.join(plan.output, name), found)
    return found


def _refuse_different(uri: str, found: Agreement) -> None:
    if not found.max_difference <= TOLERANCE:
        raise ValueError(
            f"{uri} differs from the encoder by {found.max_difference:.2g} standard deviations on {found.num_clips} "
            f"clips, more than {TOLERANCE:g}: it is not written. Are the clips silent, or damaged (--data)?"
        )
