"""X-ARES: an audio encoder without arguments; an environment variable names its folder.

::

    UNFUSED_RAY_ENCODER=runs/student python -m xares.run unfused_ray/kits/xares.py src/tasks/esc50/esc50_task.py

X-ARES uses the one name in this module that ends with "Encoder".

Source: X-ARES, arXiv 2505.16369, and its ``audio_encoder_checker``.
"""

from __future__ import annotations

import os

from torch import Tensor, nn

from unfused_ray.models import export

VARIABLE = "UNFUSED_RAY_ENCODER"
"""Environment variable with the path or URI of the folder of a run or of its export."""


class UnfusedEncoder(nn.Module):
    """Computes vectors every 40 ms, up to the end of the clip.

    Raises:
        FileNotFoundError, ValueError: the variable names no encoder, or there is none.
    """

    def __init__(self) -> None:
        super().__init__()
        if not (folder := os.environ.get(VARIABLE, "")):
            raise ValueError(f"{VARIABLE} is not set: it names the folder of the run whose encoder is evaluated")
        self.model = export.load_encoder(folder)
        self.sampling_rate = self.model.sampling_rate
        self.output_dim = self.model.output_dim
        self.hop_size_in_ms = self.model.frame_hop_ms / 2

    def forward(self, audio: Tensor) -> Tensor:
        """Embed (B, samples) at ``sampling_rate`` → (B, T, output_dim) float32."""
        return self.model.frames(audio, self.sampling_rate, half_hop=True, cover_end=True).vectors
