"""The encoder for ``from_pretrained`` of huggingface_hub, without transformers."""

from __future__ import annotations

from typing import Any

from huggingface_hub import PyTorchModelHubMixin
from portable import PortableEncoder
from torch import Tensor, nn


class UnfusedEncoder(nn.Module, PyTorchModelHubMixin):
    """Log-mel spectrogram and encoder in one; ``encoder`` has the arguments of ``PortableEncoder``."""

    def __init__(self, encoder: dict[str, Any]) -> None:
        super().__init__()
        self.encoder = PortableEncoder(**encoder)

    def forward(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """Return vectors of clips, (B, dim), and of frames over time, (B, T', dim), for waveforms (B, samples)."""
        return self.encoder(wave)
