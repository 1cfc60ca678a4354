"""Settings of the encoder's shape, and of the layers that are read from it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unfused_ray.config.base import Config, PositiveInt

Cut = Literal["block1", "block2", "block3", "fc1", "fc2"]
"""Last layer of an AudioNTT2020: a convolution block, or one of the two layers per frame."""


class EncoderConfig(Config):
    """AudioNTT2020 (arXiv 2103.06695 sec. IV-B): three convolution blocks, then two layers per frame."""

    channels: PositiveInt = 64
    """Number of channels of each of the three convolutions."""
    width: PositiveInt = 2048
    """Width of both fully connected layers; also the size of the clip embedding."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Dropout probability after the first fully connected layer."""
    cut: Cut = "fc2"
    """Last layer of the network; fc2 is the whole network."""


Readout = Literal["last", "blocks", "both"]
"""Layers that are read from an encoder: the last, the convolution blocks, or both."""
