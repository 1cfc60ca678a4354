"""HEAR 2021: the functions of its common API.

``heareval`` and ``hear-validator`` take this module and the folder of an encoder::

    hear-validator unfused_ray.kits.hear --model runs/student

Source: HEAR, arXiv 2203.03022, and the common API of the competition.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unfused_ray.models.export import load_encoder
from unfused_ray.models.frozen import FrozenEncoder


class HearModel(nn.Module):
    """An encoder with the attributes that HEAR requires."""

    def __init__(self, encoder: FrozenEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.sample_rate = encoder.sampling_rate
        self.scene_embedding_size = encoder.output_dim
        self.timestamp_embedding_size = encoder.output_dim


def load_model(model_file_path: str = "") -> HearModel:
    """Load an encoder from the folder of a run or of its export, given by path or URI.

    Raises:
        FileNotFoundError, ValueError: no encoder is named, or there is none.
    """
    if not model_file_path:
        raise ValueError("model_file_path='' names no encoder: give the folder of a run (--model of HEAR's commands)")
    return HearModel(load_encoder(model_file_path))


def get_timestamp_embeddings(audio: Tensor, model: HearModel) -> tuple[Tensor, Tensor]:
    """Return vectors every 40 ms up to the end of the clips, and their times.

    Args:
        audio: (B, samples) at the model's rate, in [-1, 1].
        model: model from :func:`load_model`.

    Returns:
        (B, T, dim) float32 vectors, and (B, T) their centres in ms.
    """
    frames = model.encoder.frames(audio, model.sample_rate, half_hop=True, cover_end=True)
    return frames.vectors, frames.times.expand(len(audio), -1)


def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """Return one vector per clip: (B, samples) at the model's rate → (B, dim) float32."""
    with torch.no_grad():
        return model.encoder(audio)
