"""The plan of an export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unfused_ray import __version__, storage
from unfused_ray.config import ExportConfig
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.exports import onnx_file
from unfused_ray.exports.card import CardResults
from unfused_ray.home import home
from unfused_ray.models.cost import num_parameters
from unfused_ray.models.export import run_of
from unfused_ray.models.frozen import FrozenEncoder


@dataclass(frozen=True)
class ExportPlan:
    """An export whose encoder and clips have been found."""

    config: ExportConfig
    description: Mapping[str, Any]
    """Description beside the encoder's weights."""
    encoder: FrozenEncoder
    index: ClipIndex
    """Clips on which the export is checked."""
    results: CardResults | None
    before: tuple[str, ...] = ()
    """Files, and the folder of scores, of the export that will be replaced."""

    @property
    def output(self) -> str:
        """Folder of the export."""
        name = storage.name(run_of(self.description["folder"]))
        return self.config.output or storage.join(home(), "exports", f"{name}-{self.config.to}")

    @property
    def metadata(self) -> dict[str, str]:
        """Metadata of the export: sample rate, shortest clip, times of the frames, size, origin."""
        encoder = self.encoder
        rule = {"tile": "repeated", "centre": "centred in silence"}[encoder.crop.short_clips]
        return {
            "sample_rate": str(encoder.sampling_rate),
            "input": "wave: (batch, samples) float32, mono, in [-1, 1] as recorded; no peak normalisation",
            "shortest_samples": str(encoder.shortest),
            "short_clips": f"{rule} to shortest_samples, within the model: give short clips as they are, never padded",
            "frame_hop_ms": f"{encoder.frame_hop_ms:g}",
            "frame_first_ms": f"{encoder.frame_first_ms:g}",
            "dim": str(encoder.output_dim),
            "num_parameters": str(num_parameters(encoder.encoder)),
            **({"opset": str(onnx_file.OPSET)} if self.config.to == "onnx" else {}),
            "encoder_sha256": self.description["sha256"],
            "method": self.description["extra"].get("method", "unknown"),
            "made_by": f"unfused-ray {__version__}",
        }
