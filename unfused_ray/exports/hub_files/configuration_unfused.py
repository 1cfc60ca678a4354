"""The configuration of an encoder, for transformers."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class UnfusedConfig(PretrainedConfig):
    """Configuration of an :class:`UnfusedModel`; ``encoder`` has the arguments of ``PortableEncoder``."""

    model_type = "unfused-audio"

    def __init__(self, encoder: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self.encoder = encoder or {}
        super().__init__(**kwargs)
