"""Floating point operations of a training, and the epochs that a budget pays for.

Counted are the matrix products and convolutions of a step, forward and backward, with all views, heads, momentum
networks and queues. PyTorch's counter counts them on a few clips passed through the method itself. For DECAR-v2 with a
full pass, that pass counts in every epoch too. Decoding, log-mels, augmentation, k-means and the optimiser are left
out, for every method alike. The one pass that makes an encoder's first labels, or a student's, is counted separately: a
budget's epochs exclude it, a row's cost includes it.
"""

from __future__ import annotations

import torch

from unfused_ray.config import DistillConfig, EncoderConfig, TrainingConfig
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.data.stream.plan import Planner
from unfused_ray.methods.method import BatchMethod, BlockMethod, BlockOutput, Method
from unfused_ray.models.cost import Operations, cost_of
from unfused_ray.training.stages import stage_of

_CLIPS = 8
"""Number of clips, enough for batch norm. Operations are proportional to the clips, except for similarities within the
batch, which are less than a thousandth."""
TERA = 1e12


def clip_operations(config: TrainingConfig, index: ClipIndex) -> float:
    """Count the operations of an epoch for each clip that it trains on.

    Args:
        config: configuration of the training.
        index: its clips; their number of classes may decide the size of a head.
    """
    stage = stage_of(config)
    method, clustering = stage.begun_method(index), stage.clustering
    frames = config.front_end.num_frames(config.crop.num_samples(config.front_end.sample_rate))
    views = torch.randn(method.num_views, _CLIPS, config.front_end.num_mels, frames)
    with Operations() as operations:
        _loss(method, views, torch.zeros(len(stage.num_classes(index)), _CLIPS, dtype=torch.int64)).backward()
        if clustering is not None and clustering.full_pass:
            method.embed(views[0])
    return operations.count / _CLIPS


def labelling_operations(config: TrainingConfig, index: ClipIndex, labelled_by: EncoderConfig) -> float:
    """Count the operations of the pass before the first epoch that makes pseudo-labels; 0 without one.

    Args:
        config: configuration of the training.
        index: its clips; whole clips are labelled for a student, crops for DECAR-v2.
        labelled_by: shape of the encoder whose vectors are clustered.
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
    """Return the number of clips that an epoch trains on; a remainder that fills no step is left out.

    Raises:
        ValueError: the clips do not fill one step.
    """
    return Planner(index, config.seed, config.batch).num_steps("train") * config.batch.clips_per_step


def epochs_of(budget: float, epoch: float) -> int:
    """Return the whole number of epochs, at least one, whose cost is nearest to the budget; both in the same unit."""
    return max(1, round(budget / epoch))


def within_budget(epochs: int, budget: float, epoch: float) -> bool:
    """Return True if epochs cost the budget to within half an epoch or a twentieth, or if it pays for at most one."""
    pays_for_at_most_one = epochs == 1 and budget <= epoch
    return pays_for_at_most_one or abs(epochs * epoch - budget) <= max(0.5 * epoch, 0.05 * budget)
