"""What a training costs in floating point operations, and the epochs that a budget pays for.

Counted are the matrix products and convolutions of a step, forward and backward, with all views, heads, momentum
networks and queues: what PyTorch's counter counts, on a few clips of the method itself. Of DECAR-v2 with a full pass,
the pass an epoch too. Left out, for every method alike: decoding, log-mels and augmentation, k-means, the optimiser.
The one pass that makes an encoder's first labels, or a student's, is counted by itself: epochs are those that a budget
pays for without it, a row's cost is with it.
"""

from __future__ import annotations

import numpy as np
import torch

from unfused_ray.config import DistillConfig, EncoderConfig, TrainingConfig
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.data.stream.plan import Planner
from unfused_ray.methods.method import BatchMethod, BlockMethod, BlockOutput, Method
from unfused_ray.models.cost import Operations, cost_of
from unfused_ray.training.stages import stage_of

_CLIPS = 8
"""Enough for batch norm. Operations grow with the clips but for similarities of the batch, less than a thousandth."""
TERA = 1e12


def clip_operations(config: TrainingConfig, index: ClipIndex) -> float:
    """Floating point operations of an epoch for each clip that it trains on.

    Args:
        config: of the training.
        index: its clips; how many classes they have may decide the size of a head.
    """
    stage = stage_of(config)
    clustering, num_classes = stage.clustering, stage.num_classes(index)
    method = stage.build_method(num_classes)
    if clustering is not None:
        size = clustering.dim
        method.begin_epoch([np.full((clusters, size), size**-0.5, np.float32) for clusters in num_classes])
    frames = config.front_end.num_frames(config.crop.num_samples(config.front_end.sample_rate))
    views = torch.randn(method.num_views, _CLIPS, config.front_end.num_mels, frames)
    with Operations() as operations:
        _loss(method, views, torch.zeros(len(num_classes), _CLIPS, dtype=torch.int64)).backward()
        if clustering is not None and clustering.full_pass:
            method.embed(views[0])
    return operations.count / _CLIPS


def labelling_operations(config: TrainingConfig, index: ClipIndex, labelled_by: EncoderConfig) -> float:
    """Floating point operations of the pass before the first epoch that makes pseudo-labels; 0 where none is made.

    Args:
        config: of the training.
        index: its clips: of a student whole ones, of DECAR-v2 crops.
        labelled_by: shape of the encoder that is clustered.
    """
    seconds = 0.0
    if isinstance(config, DistillConfig) and config.labels.origin != "true":
        seconds = sum(manifest.seconds for manifest in index.manifests)
    elif (clustering := stage_of(config).clustering) is not None and not clustering.full_pass:
        seconds = index.num_clips * config.crop.seconds
    return 2 * seconds * cost_of(labelled_by, config.front_end)[1]


def _loss(method: Method, views_VBFT: torch.Tensor, labels_HB: torch.Tensor) -> torch.Tensor:
    weights = torch.ones(views_VBFT.shape[1])
    output: BlockOutput
    if isinstance(method, BatchMethod):
        output = method.batch_loss(method(views_VBFT, weights, labels_HB), weights)
    else:
        assert isinstance(method, BlockMethod)
        output = method(views_VBFT, weights, labels_HB)
    return output.loss


def epoch_clips(config: TrainingConfig, index: ClipIndex) -> int:
    """Clips that an epoch trains on: the rest that fills no step is left out.

    Raises:
        ValueError: the clips do not fill one step.
    """
    steps = Planner(index, config.seed, config.batch).num_steps("train")
    if not steps:
        raise ValueError(
            f"batch: a step of {config.batch.clips_per_step} clips is more than the {index.num_clips} training clips "
            f"of {', '.join(config.data)}"
        )
    return steps * config.batch.clips_per_step


def epochs_of(budget: float, epoch: float) -> int:
    """Whole epochs, at least one, that come nearest to a budget; both in the same unit."""
    return max(1, round(budget / epoch))


def within_budget(epochs: int, budget: float, epoch: float) -> bool:
    """Whether a number of epochs costs what the budget says, but for half an epoch or a twentieth; or is the least."""
    return epochs == 1 >= budget / epoch or abs(epochs * epoch - budget) <= max(0.5 * epoch, 0.05 * budget)
