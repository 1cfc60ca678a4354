"""The encoder for ``transformers.AutoModel``: from waveforms to vectors."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .configuration_unfused import UnfusedConfig
from .portable import PortableEncoder


class UnfusedModel(PreTrainedModel):
    """Log-mel spectrogram and encoder in one."""

    config_class = UnfusedConfig
    main_input_name = "input_values"

    def __init__(self, config: UnfusedConfig) -> None:
        super().__init__(config)
        self.encoder = PortableEncoder(**config.encoder)
        self.post_init()

    def forward(self, input_values: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """Embed clips.

        Args:
            input_values: (B, samples) float32 at ``config.encoder["sample_rate"]``, in [-1, 1] as recorded, without
                normalising peaks or padding.

        Returns:
            ``pooler_output``, (B, dim), a vector a clip; ``last_hidden_state``, (B, T', dim), vectors over time.
        """
        vectors, frames = self.encoder(input_values)
        return BaseModelOutputWithPooling(last_hidden_state=frames, pooler_output=vectors)
