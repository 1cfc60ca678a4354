"""Networks that were never trained: the baseline that shows what an encoder's shape alone achieves."""

from __future__ import annotations

import math

import numpy as np
import torch

from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import BatchConfig, CropConfig, EncoderConfig, FrontEndConfig
from unfused_ray.data.shards.format import Statistics
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.data.stream.plan import Pass, Planner
from unfused_ray.data.stream.prefetch import LocalSource
from unfused_ray.data.stream.read import BlockReader
from unfused_ray.models.batch_norm import update_running_statistics
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.models.frozen import FrozenEncoder

_LARGEST_BLOCK = 64


def random_encoder(
    config: EncoderConfig,
    front_end: FrontEndConfig,
    crop: CropConfig,
    index: ClipIndex,
    statistics: Statistics,
    seed: int,
) -> FrozenEncoder:
    """Make an encoder with random weights and calibrated batch norms: one pass over ``index`` in training mode.

    Without that pass the running statistics are those of white noise, and a random network scores far below its
    potential (kws 61.9 % instead of 71.5 % in a trial before this project).

    Args:
        config: shape of the encoder.
        front_end, crop: settings of its input; the pass takes the crop in the middle of each clip.
        index: clips to calibrate on.
        statistics: statistics of their log-mels.
        seed: seed of the weights.

    Raises:
        ValueError: there are fewer than two clips.
        OSError: a shard is missing, or its storage does not answer.
    """
    if index.num_clips < 2:
        raise ValueError(
            f"{', '.join(manifest.uri for manifest in index.manifests)} holds {index.num_clips} clip: the batch norms "
            "of a random network are calibrated on two at least, prepare more clips"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = AudioNTT2020(config, front_end.num_mels)
    log_mel = LogMel(front_end, statistics.mean, statistics.std)
    # Every block weighs the same, so none may be a small remainder: 452 clips are 8 blocks of 57, not 7 of 64 and one
    # of 4.
    block = math.ceil(index.num_clips / math.ceil(index.num_clips / _LARGEST_BLOCK))
    planner = Planner(index, 0, BatchConfig(block=block, blocks_per_step=1))
    reader = BlockReader(0, block, crop, crop.num_samples(front_end.sample_rate))
    encoder.train()
    with torch.enable_grad():  # batch norms record statistics only with gradients enabled
        for read in LocalSource(planner, reader).blocks(Pass("embed", 0)):
            counts = (read.weights > 0) & (read.clip_ids >= 0)  # neither damaged nor padding of the last block
            waves = torch.from_numpy(np.require(read.waves[counts][:, 0], requirements="W"))
            if len(waves) > 1:
                encoder.blocks(log_mel(waves))
    update_running_statistics(encoder, momentum=1.0)
    return FrozenEncoder(encoder, log_mel, crop, {"method": "random", "seed": seed})
