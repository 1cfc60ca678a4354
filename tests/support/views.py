"""Makes views of blocks of clips, and vectors of views, from noise, for tests of methods."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK, NUM_MELS, NUM_FRAMES = 6, 16, 16


def views(seed: int, noise: float = 1.0) -> Tensor:
    """Return two views of a block's clips, ``(2, BLOCK, NUM_MELS, NUM_FRAMES)``, the more alike the less noise."""
    rng = torch.Generator().manual_seed(seed)
    shared = torch.randn(BLOCK, NUM_MELS, NUM_FRAMES, generator=rng)
    return shared + noise * torch.randn(2, BLOCK, NUM_MELS, NUM_FRAMES, generator=rng)


def similar_vectors(seed: int, num_clips: int = 7, dim: int = 5) -> Tensor:
    """Return similar vectors of two views: (2, num_clips, dim) float64."""
    rng = torch.Generator().manual_seed(seed)
    shared = torch.randn(num_clips, dim, generator=rng, dtype=torch.float64)
    return shared + 0.5 * torch.randn(2, num_clips, dim, generator=rng, dtype=torch.float64)
