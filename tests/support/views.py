"""Makes views of blocks of clips from noise, for tests of methods."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK, NUM_MELS, NUM_FRAMES = 6, 16, 16


def views(seed: int, noise: float = 1.0) -> Tensor:
    """Return two views of a block's clips, ``(2, BLOCK, NUM_MELS, NUM_FRAMES)``, the more alike the less noise."""
    rng = torch.Generator().manual_seed(seed)
    shared = torch.randn(BLOCK, NUM_MELS, NUM_FRAMES, generator=rng)
    return shared + noise * torch.randn(2, BLOCK, NUM_MELS, NUM_FRAMES, generator=rng)
