"""AudioNTT2020, the encoder of BYOL-A, as a chain of stages that can be entered and left anywhere."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfused_ray.config import EncoderConfig
from unfused_ray.models.batch_norm import BlockBatchNorm

_NUM_BLOCKS = 3


class AudioNTT2020(nn.Module):
    """Three convolution blocks, two layers per frame, max plus mean over time.

    The stages, for log-mels of F bands and T frames, C channels and width D::

        blocks   (B, F, T)             → three outputs, (B, C, F/2, T/2) to (B, C, F/8, T/8)
        hidden   (B, C, F/8, T/8)      → (B, T/8, D)    first layer, ReLU
        frames   (B, T/8, D)           → (B, T/8, D)    dropout, second layer, ReLU: one vector per 8 frames
        max_mean (B, T/8, D)           → (B, D)         the clip's embedding

    5,321,856 parameters at C = 64, D = 2048, F = 64. Weights start from torch's defaults: seed torch before
    constructing.

    Source: BYOL-A, arXiv 2103.06695 sec. IV-B. Here ReLU follows the max pool, which it commutes with, at a
    quarter of the cost.
    """

    def __init__(self, config: EncoderConfig, num_mels: int) -> None:
        super().__init__()
        shrink = 2**_NUM_BLOCKS
        if num_mels % shrink:
            raise ValueError(f"num_mels={num_mels} must be a multiple of {shrink}: {_NUM_BLOCKS} blocks each halve it")
        self.config = config
        self.num_mels = num_mels
        channels = [1] + [config.channels] * _NUM_BLOCKS
        self.conv = nn.ModuleList(_block(*pair) for pair in itertools.pairwise(channels))
        self.fc1 = nn.Linear(config.channels * num_mels // shrink, config.width)
        self.fc2 = nn.Linear(config.width, config.width)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Clip embeddings: (B, F, T) normalised log-mels → (B, width)."""
        return max_mean(self.frames(self.hidden(self.blocks(log_mel)[-1])))

    def blocks(self, log_mel: Tensor) -> tuple[Tensor, ...]:
        """Outputs of the three convolution blocks: the i-th is (B, C, F / 2^i, T // 2^i), i from 1.

        Raises:
            ValueError: the number of bands is not the encoder's, or there are fewer than 8 frames.
        """
        if log_mel.ndim != 3 or log_mel.shape[1] != self.num_mels or log_mel.shape[2] < 2**_NUM_BLOCKS:
            raise ValueError(
                f"log_mel has shape {tuple(log_mel.shape)}: give (batch, {self.num_mels} bands, "
                f"{2**_NUM_BLOCKS} frames or more)"
            )
        outputs = [log_mel.unsqueeze(1).to(memory_format=torch.channels_last)]
        for block in self.conv:
            outputs.append(block(outputs[-1]))
        return tuple(outputs[1:])

    def hidden(self, block3: Tensor) -> Tensor:
        """First layer on each frame of the last block's output: (B, C, F/8, T') → (B, T', width)."""
        return F.relu(self.fc1(flatten_bands(block3)))

    def frames(self, hidden: Tensor, dropout: bool = True) -> Tensor:
        """Second layer on each frame: (B, T', width) → (B, T', width).

        In training, ``dropout=False`` gives the clean features of the same ``hidden``.
        """
        hidden = F.dropout(hidden, self.config.dropout, training=self.training and dropout)
        return F.relu(self.fc2(hidden))


def flatten_bands(block: Tensor) -> Tensor:
    """One vector a frame from a block's output: (B, C, F', T') → (B, T', F'·C), channels running fastest.

    Its mean or maximum over dimension 1 is the block's clip embedding.
    """
    return block.permute(0, 3, 2, 1).flatten(2)


def max_mean(frames: Tensor) -> Tensor:
    """Maximum plus mean over time: (B, T', D) → (B, D)."""
    return frames.amax(1) + frames.mean(1)


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1),
        BlockBatchNorm(out_channels),
        nn.MaxPool2d(2),
        nn.ReLU(inplace=True),
    )
