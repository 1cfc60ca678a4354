"""Makes the views of a block that a method trains on, from its int16 crops, batched on the device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unfused_ray.audio import randomness
from unfused_ray.audio.augment import augment
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import AugmentConfig, FrontEndConfig


class Views(nn.Module):
    """Computes normalised log-mels of a block's crops, plain or augmented.

    Args:
        front_end: settings of the log-mel.
        config: settings of the augmentation.
        mean, std: statistics of the data's log-mel values.
        seed: seed of the augmentation.
        num_views: augmented views of each clip; view v comes from crop v modulo the number of crops.
    """

    def __init__(
        self, front_end: FrontEndConfig, config: AugmentConfig, mean: float, std: float, seed: int, num_views: int
    ) -> None:
        super().__init__()
        self.log_mel = LogMel(front_end, mean, std)
        self.config = config
        self.seed = seed
        self.num_views = num_views

    @torch.no_grad()
    def forward(self, waves_BCS: Tensor, epoch: int, block: int) -> Tensor:
        """Augment the crops, as a pure function of (seed, epoch, block, view): ``(V, B, F, T)``."""
        log_mels = [self.log_mel(waves_BCS[:, crop]) for crop in range(min(waves_BCS.shape[1], self.num_views))]
        rngs = [randomness.generator(self.seed, "augment", epoch, block, view) for view in range(self.num_views)]
        return augment([log_mels[view % len(log_mels)] for view in range(self.num_views)], self.config, rngs)

    @torch.no_grad()
    def plain(self, waves_BCS: Tensor) -> Tensor:
        """Return the log-mels of the first crop, not augmented: ``(B, F, T)``."""
        return self.log_mel(waves_BCS[:, 0])
