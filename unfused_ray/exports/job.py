"""The export of an encoder: checked, described, written, compared with the encoder on real clips, and signed."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import safetensors.torch
import torch
from rich.console import Group

from unfused_ray import __version__, evaluation_job, extras, paths, storage
from unfused_ray.config import EvaluateConfig, ExportConfig, TrackingConfig
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.embedding.clips import refuse_other_rate
from unfused_ray.evaluation.cells import MEASURES
from unfused_ray.evaluation.onnx_embedder import OnnxEmbedder
from unfused_ray.evaluation.table import EvaluationTable
from unfused_ray.evaluation.tasks import load_task
from unfused_ray.exports import card, hub_folder, onnx_file, torch_folder
from unfused_ray.exports.agreement import Agreement, compare, read_waves
from unfused_ray.exports.convert import portable, settings
from unfused_ray.home import home
from unfused_ray.models.cost import num_parameters
from unfused_ray.models.export import FOLDERS, load_encoder, read_description
from unfused_ray.models.frozen import FrozenEncoder
from unfused_ray.models.portable import PortableEncoder
from unfused_ray.progress import summary

FORMAT_VERSION = 1
RECORD = "export.json"
"""Written last: files and checks of a whole export."""
EVALUATION = "evaluation"
"""Folder of the scores of the 8-bit file."""
TOLERANCE = 1e-3
"""Largest difference, in standard deviations, of an export that is signed; weights of 8 bits have none."""


@dataclass(frozen=True)
class ExportPlan:
    """An export whose encoder and clips have been found."""

    config: ExportConfig
    description: Mapping[str, Any]
    """What the encoder's own export says of itself."""
    encoder: FrozenEncoder
    index: ClipIndex
    """Clips to check on."""
    results: card.Results | None

    @property
    def output(self) -> str:
        """Folder of the export."""
        folder = self.description["folder"]
        name = storage.name(storage.parent(folder) if storage.name(folder) in FOLDERS else folder)
        return self.config.output or storage.join(home(), "exports", f"{name}-{self.config.to}")


@dataclass(frozen=True)
class ExportResult:
    """A finished export."""

    folder: str
    """By path or URI."""
    files: Mapping[str, int]
    """Bytes by file."""
    checks: Mapping[str, Agreement]
    """By file: how it agrees with the encoder."""
    table: EvaluationTable | None
    """Scores of the file of float32 and of that with weights of 8 bits."""


def check(config: ExportConfig) -> ExportPlan:
    """Load the encoder and find the clips; nothing is written.

    Raises:
        FileNotFoundError: there is no encoder, or no prepared source.
        ValueError: a path cannot be used, the sources have another rate, or a task cannot be scored.
        MissingExtraError: what writes ONNX files is not installed.
    """
    config = paths.check(config)
    for module in ("onnx", "onnxscript", "onnxruntime") if config.to == "onnx" else ():
        extras.require("export", module, "an export to ONNX")
    description = read_description(config.encoder)
    data = config.data or tuple(description["extra"].get("config", {}).get("data", ()))
    if not data:
        raise ValueError(
            f"data=() names no clips to check on, and {description['folder']} does not say what it was trained on: "
            "give folders written by unfused-ray prepare, --data …"
        )
    encoder = load_encoder(config.encoder)
    index = ClipIndex.load(data, None)
    refuse_other_rate(index, encoder.sampling_rate)
    config = config.replace(data=data, tasks=(config.tasks or data) if config.int8 else ())
    for task in config.tasks:
        load_task(task)
    results = card.find_results(config.evaluation, description["folder"]) if config.evaluation else None
    return ExportPlan(config, description, encoder, index, results)


def describe(plan: ExportPlan) -> Group:
    """Summarise an export without starting it."""
    config = plan.config
    rows: dict[str, float | str] = {
        "encoder": f"{plan.description['folder']}, {num_parameters(plan.encoder.encoder):,} parameters",
        "clips to check on": f"{min(config.num_clips, plan.index.num_clips):,} of {', '.join(config.data)}",
        **({"8-bit weights, scored on": ", ".join(config.tasks)} if config.int8 else {}),
        **({"rows of the card": f"{plan.results.row} on {', '.join(plan.results.tasks)}"} if plan.results else {}),
    }
    return summary(f"would export to {plan.output}, as {config.to}; a dry run writes nothing", rows)


def run(plan: ExportPlan) -> ExportResult:
    """Write the export, compare it with the encoder, and sign it; one that is there is replaced.

    Raises:
        ValueError: the export differs from the encoder by more than ``TOLERANCE``, or no two clips can be read.
        OSError: it cannot be written.
    """
    storage.delete(storage.join(plan.output, RECORD))
    waves = read_waves(plan.index, plan.config.num_clips)
    network = portable(plan.encoder)
    write = {"onnx": _write_onnx, "hub": _write_hub, "torch": _write_torch}[plan.config.to]
    checks = write(plan, network, waves)
    table = _score(plan) if plan.config.int8 else None
    names = [storage.relative(file, plan.output) for file in storage.list_files(plan.output)]
    result = ExportResult(plan.output, {name: _size(plan, name) for name in names}, checks, table)
    content = {
        "to": plan.config.to,
        # No paths: the folder may be published.
        "encoder": {name: plan.description[name] for name in ("sha256", "num_parameters")},
        "files": result.files,
        "checks": {name: asdict(agreement) for name, agreement in checks.items()},
        "metadata": _metadata(plan),
    }
    storage.write_json(storage.join(plan.output, RECORD), content, FORMAT_VERSION)
    return result


def describe_result(result: ExportResult) -> Group:
    """Summarise a finished export."""
    rows: dict[str, float | str] = {name: f"{size / 1e6:.2f} MB" for name, size in result.files.items()}
    rows |= {f"{name} against the encoder": agreement.text for name, agreement in result.checks.items()}
    if result.table:
        heading = result.table.headings[-1]
        whole, small = result.table.rows[-2:]
        for measure in MEASURES:
            difference = small.difference[measure][heading].text("+")
            rows[f"{measure}, {heading}"] = (
                f"{whole.accuracy[measure][heading].text()} %; with 8 bits "
                f"{small.accuracy[measure][heading].text()} %, {difference} points"
            )
    return summary(f"exported to {result.folder}", rows)


def _write_onnx(plan: ExportPlan, network: PortableEncoder, waves: list[np.ndarray]) -> dict[str, Agreement]:
    models = {onnx_file.FILE: (model := onnx_file.build(network))}
    if plan.config.int8:
        models[onnx_file.INT8_FILE] = onnx_file.with_int8_weights(model, network)
    checks = {}
    for name, each in models.items():
        uri, metadata = (
            storage.join(plan.output, name),
            {**_metadata(plan), "weights": "float32" if each is model else "int8"},
        )
        storage.write_bytes(uri, onnx_file.with_metadata(each, metadata))
        found = compare(plan.encoder, OnnxEmbedder(uri).run, waves)
        if each is model:
            _refuse_different(uri, found)
        metadata |= {"max_difference": f"{found.max_difference:.3g} of the standard deviation of the vectors' numbers"}
        metadata |= {"checked_on": f"{found.num_clips} clips: {found.text}"}
        storage.write_bytes(uri, onnx_file.with_metadata(each, metadata))
        checks[name] = found
    return checks


def _write_torch(plan: ExportPlan, network: PortableEncoder, waves: list[np.ndarray]) -> dict[str, Agreement]:
    files = torch_folder.files(network, settings(plan.encoder))
    _write(plan, files)
    read = PortableEncoder(**json.loads(files[torch_folder.CONFIG]))
    read.load_state_dict(safetensors.torch.load(files[torch_folder.WEIGHTS]))
    checks = {torch_folder.WEIGHTS: _compare(plan, read.eval(), waves, torch_folder.WEIGHTS)}
    if plan.config.program:
        program = torch_folder.program(network)
        _write(plan, {torch_folder.PROGRAM: program})
        module = torch.export.load(io.BytesIO(program)).module()
        checks[torch_folder.PROGRAM] = _compare(plan, module, waves, torch_folder.PROGRAM)
    return checks


def _write_hub(plan: ExportPlan, network: PortableEncoder, waves: list[np.ndarray]) -> dict[str, Agreement]:
    files = hub_folder.files(network, settings(plan.encoder))
    _write(plan, files)
    read = torch.nn.ModuleDict({"encoder": PortableEncoder(**json.loads(files[torch_folder.CONFIG])["encoder"])})
    read.load_state_dict(safetensors.torch.load(files[torch_folder.WEIGHTS]))
    found = _compare(plan, read["encoder"].eval(), waves, torch_folder.WEIGHTS)
    config = plan.config.replace(output=plan.output)
    _write(plan, {hub_folder.CARD: card.write(config, plan.encoder, plan.description, plan.results, found)})
    return {torch_folder.WEIGHTS: found}


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
            f"clips, at most {TOLERANCE:g} is taken: it is not signed. Are the clips silent, or damaged (--data)?"
        )


def _metadata(plan: ExportPlan) -> dict[str, str]:
    """All that a user of the export needs besides it, as ONNX has it."""
    encoder = plan.encoder
    hop_ms = 1000 * encoder.log_mel.config.hop / encoder.sampling_rate
    step = 2 ** len(encoder.encoder.conv)
    rule = {"tile": "repeated", "centre": "centred in silence"}[encoder.crop.short_clips]
    return {
        "sample_rate": str(encoder.sampling_rate),
        "input": "wave: (batch, samples) float32, mono, in [-1, 1] as recorded; no peak normalisation",
        "shortest_samples": str(encoder.shortest),
        "short_clips": f"{rule} to shortest_samples, within the model: give short clips as they are, never padded",
        "frame_hop_ms": f"{step * hop_ms:g}",
        "frame_first_ms": f"{(step - 1) / 2 * hop_ms:g}",
        "dim": str(encoder.output_dim),
        "num_parameters": str(num_parameters(encoder.encoder)),
        **({"opset": str(onnx_file.OPSET)} if plan.config.to == "onnx" else {}),
        "encoder_sha256": plan.description["sha256"],
        "method": plan.description["extra"].get("method", "unknown"),
        "made_by": f"unfused-ray {__version__}",
    }


def _score(plan: ExportPlan) -> EvaluationTable:
    """Read both ONNX files as rows of a table."""
    files = {"float32": onnx_file.FILE, "int8": onnx_file.INT8_FILE}
    config = EvaluateConfig(
        models=tuple(f"{name}={storage.join(plan.output, file)}" for name, file in files.items()),
        tasks=plan.config.tasks,
        name=EVALUATION,
        output=storage.join(plan.output, EVALUATION),
        random_seeds=0,
        tracking=TrackingConfig(uri="off"),
    )
    return evaluation_job.run(evaluation_job.check(config))


def _write(plan: ExportPlan, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        storage.write_bytes(storage.join(plan.output, name), data)


def _size(plan: ExportPlan, name: str) -> int:
    with storage.open_input(storage.join(plan.output, name)) as file:
        return file.size()
