"""Heads on top of an encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from unfused_ray.models.batch_norm import BlockBatchNorm


def perceptron(in_dim: int, hidden: int, out_dim: int) -> nn.Sequential:
    """Linear, batch norm, ReLU, linear: (B, in_dim) → (B, out_dim).

    The first layer has no bias, because batch norm would remove it. Weights start from torch's random defaults: seed
    torch before constructing.
    """
    return nn.Sequential(
        nn.Linear(in_dim, hidden, bias=False),
        BlockBatchNorm(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, out_dim),
    )


class ProjectionHead(nn.Module):
    """Maps a clip's embedding to a point on the unit sphere: a :func:`perceptron`, L2-normalised.

    Source: DeepCluster-v2 in SwAV, arXiv 2006.09882 app. A.
    """

    def __init__(self, in_dim: int, hidden: int, out_dim: int) -> None:
        super().__init__()
        self.layers = perceptron(in_dim, hidden, out_dim)

    def forward(self, embedding: Tensor) -> Tensor:
        """Compute projections of length 1: (B, in_dim) → (B, out_dim), float32 also under autocast."""
        return F.normalize(self.layers(embedding).float(), dim=1)


class DecorrelationHead(nn.Module):
    """Maps a layer's clip embedding to features to decorrelate: three linear layers, batch norm and ReLU between them.

    No layer has a bias: batch norm, or the standardisation of the outputs, would remove it. Weights start from torch's
    random defaults: seed torch before constructing.

    Source: Barlow Twins, arXiv 2103.03230 sec. 2.2 (width 8192); the LAPE code's has width 2048.
    """

    def __init__(self, in_dim: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(in_dim, width, bias=False),
            BlockBatchNorm(width),
            nn.ReLU(inplace=True),
            nn.Linear(width, width, bias=False),
            BlockBatchNorm(width),
            nn.ReLU(inplace=True),
            nn.Linear(width, width, bias=False),
        )

    def forward(self, embedding: Tensor) -> Tensor:
        """Compute the features: (B, in_dim) → (B, width), float32 also under autocast."""
        return self.layers(embedding).float()


class ClassifierHead(nn.Module):
    """Maps a layer's clip embedding to logits: linear, batch norm, ReLU, then a linear layer for each set of classes.

    The first layer has no bias, because batch norm would remove it. Weights start from torch's random defaults: seed
    torch before constructing.

    Source: the branches of "Be your own teacher", arXiv 1905.08094 sec. 3, as a perceptron with one hidden layer.
    """

    def __init__(self, in_dim: int, hidden: int, num_classes: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(in_dim, hidden, bias=False), BlockBatchNorm(hidden), nn.ReLU(inplace=True)
        )
        self.logits = nn.ModuleList(nn.Linear(hidden, classes) for classes in num_classes)

    def forward(self, embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Compute (N, in_dim) → hidden features (N, hidden), and logits (N, K) of each set; float32 also under
        autocast."""
        features = self.layers(embedding)
        return features.float(), [layer(features).float() for layer in self.logits]
