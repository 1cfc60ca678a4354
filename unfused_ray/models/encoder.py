"""AudioNTT2020, the encoder of BYOL-A, as a chain of layers that can be read and cut after any of them."""

from __future__ import annotations

import itertools
from typing import Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfused_ray.config import Cut, EncoderConfig
from unfused_ray.models import kernels
from unfused_ray.models.batch_norm import BlockBatchNorm

LAYERS: tuple[Cut, ...] = get_args(Cut)
_NUM_BLOCKS = 3


class AudioNTT2020(nn.Module):
    """Three convolution blocks, two layers per frame, max plus mean over time; or the beginning of this network.

    The layers, for log-mels of F bands and T frames, C channels and width D::

        blocks   (B, F, T)             → three outputs, (B, C, F/2, T/2) to (B, C, F/8, T/8)
        hidden   (B, C, F/8, T/8)      → (B, T/8, D)    first layer, ReLU
        frames   (B, T/8, D)           → (B, T/8, D)    dropout, second layer, ReLU: one vector per 8 frames
        max_mean (B, T/8, D)           → (B, D)         the clip's embedding

    5,321,856 parameters at C = 64, D = 2048, F = 64. A network that is cut after layer ``config.cut`` has no later
    layers: after block i its frames are the block's output, (B, T/2^i, C·F/2^i). Weights start from torch's random
    defaults: seed torch before constructing.

    Source: BYOL-A, arXiv 2103.06695 sec. IV-B. Here ReLU follows the max pool, with which it commutes, because this
    costs a quarter.
    """

    def __init__(self, config: EncoderConfig, num_mels: int) -> None:
        super().__init__()
        if num_mels % 2**_NUM_BLOCKS:
            raise ValueError(
                f"num_mels={num_mels} must be a multiple of {2**_NUM_BLOCKS}: {_NUM_BLOCKS} blocks each halve it"
            )
        self.config = config
        self.num_mels = num_mels
        depth = LAYERS.index(config.cut) + 1
        num_blocks = min(depth, _NUM_BLOCKS)
        channels = [1] + [config.channels] * num_blocks
        self.conv = nn.ModuleList(_block(*pair) for pair in itertools.pairwise(channels))
        self.fc1 = nn.Linear(self.block_dims[-1], config.width) if depth > _NUM_BLOCKS else None
        self.fc2 = nn.Linear(config.width, config.width) if depth > _NUM_BLOCKS + 1 else None

    @property
    def block_dims(self) -> tuple[int, ...]:
        """Sizes of the blocks' clip embeddings, channels times remaining bands: C·F / 2^i for block i."""
        return tuple(self.config.channels * self.num_mels // 2**i for i in range(1, len(self.conv) + 1))

    @property
    def dim(self) -> int:
        """Size of a clip embedding."""
        return self.block_dims[-1] if self.fc1 is None else self.config.width

    @property
    def frame_step(self) -> int:
        """Number of log-mel frames from one vector over time to the next; each vector is pooled from as many."""
        return 2 ** len(self.conv)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Compute clip embeddings: (B, F, T) normalised log-mels → (B, dim)."""
        return kernels.max_mean(self.frames(self.hidden(self.blocks(log_mel)[-1])))

    def blocks(self, log_mel: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the convolution blocks: output i is (B, C, F / 2^i, T // 2^i), i from 1.

        Raises:
            ValueError: the number of bands is not the encoder's, or there are too few frames to halve.
        """
        if log_mel.ndim != 3 or log_mel.shape[1] != self.num_mels or log_mel.shape[2] < self.frame_step:
            raise ValueError(
                f"log_mel has shape {tuple(log_mel.shape)}: give (batch, {self.num_mels} bands, "
                f"{self.frame_step} frames or more)"
            )
        outputs = [log_mel.unsqueeze(1).to(memory_format=torch.channels_last)]
        for block in self.conv:
            outputs.append(block(outputs[-1]))
        return tuple(outputs[1:])

    def hidden(self, block: Tensor) -> Tensor:
        """Apply the first layer to each frame of the last block's output: (B, C, F/8, T') → (B, T', width).

        If the network ends with a block, return the block's frames.
        """
        frames = flatten_bands(block)
        return frames if self.fc1 is None else F.relu(kernels.on_frames(self.fc1, frames))

    def frames(self, hidden: Tensor, dropout: bool = True) -> Tensor:
        """Apply the second layer to each frame: (B, T', width) → (B, T', width). Without one, return ``hidden``.

        In training, ``dropout=False`` gives the clean features of the same ``hidden``.
        """
        if self.fc2 is None:
            return hidden
        if self.training and dropout:
            hidden = kernels.dropout(hidden, self.config.dropout)
        return F.relu(kernels.on_frames(self.fc2, hidden))

    def layers(self, log_mel: Tensor) -> dict[Cut, Tensor]:
        """Return every layer's clip embedding, max plus mean over time: by layer, (B, that layer's size)."""
        blocks = self.blocks(log_mel)
        frames: dict[Cut, Tensor] = dict(zip(LAYERS, map(flatten_bands, blocks), strict=False))
        if self.fc1 is not None:
            frames["fc1"] = self.hidden(blocks[-1])
        if self.fc2 is not None:
            frames["fc2"] = self.frames(frames["fc1"])
        return {layer: kernels.max_mean(features) for layer, features in frames.items()}

    def truncated(self, cut: Cut) -> Self:
        """Copy the beginning of this network, up to the layer ``cut``.

        Raises:
            ValueError: this network ends before that layer.
        """
        if LAYERS.index(cut) > LAYERS.index(self.config.cut):
            raise ValueError(f"cut={cut} is not in a network that ends with {self.config.cut}")
        with torch.random.fork_rng(devices=[]):  # the weights drawn here are replaced at once
            beginning = type(self)(self.config.replace(cut=cut), self.num_mels)
        state = self.state_dict()
        beginning.load_state_dict({name: state[name] for name in beginning.state_dict()})
        return beginning.to(next(self.parameters()).device)


def flatten_bands(block: Tensor) -> Tensor:
    """Make one vector per frame of a block's output: (B, C, F', T') → (B, T', F'·C), channels running fastest.

    Its mean or maximum over dimension 1 is the block's clip embedding.
    """
    return block.permute(0, 3, 2, 1).flatten(2)


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1),
        BlockBatchNorm(out_channels, pool=True),
        nn.ReLU(inplace=True),
    )
