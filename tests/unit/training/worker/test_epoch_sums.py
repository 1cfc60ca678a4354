"""Means over an epoch are of the clips that count: those with a label and without damage."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.steps import CONFIGS, NUM_CLASSES, steps_of

from benchmarks.gpu.learning import NoiseBlock
from unfused_ray.data.stream.read import Block
from unfused_ray.runs.checkpoints import Position
from unfused_ray.training.worker.epoch_sums import EpochSums, means


def test_a_clip_that_is_damaged_or_has_no_label_in_any_head_is_left_out_once() -> None:
    clip_ids, waves = np.arange(6, 12), np.zeros((6, 1, 1), np.int16)
    block = Block(0, clip_ids, waves, np.array([1, 0, 0, 1, 1, 1], np.float32))
    heads = [np.arange(20), np.arange(20)]
    heads[0][[7, 9]] = -1  # clip 7 is damaged, too
    heads[1][[9, 10]] = -1
    sums = EpochSums()
    sums.add(block, {"loss": torch.tensor(8.0)}, heads)
    assert means(sums.values) == {"loss": 4.0}


def test_the_loss_of_a_task_whose_clips_are_labelled_in_part_is_that_of_the_labelled_ones() -> None:
    """An untrained classifier has a loss of log K; as a mean over all clips it would be half of that."""
    config, sums = CONFIGS["unfused"], EpochSums()
    learner = steps_of(config, torch.device("cpu")).learner
    blocks = (NoiseBlock.of(config, index) for index in range(config.batch.blocks_per_step))
    labels = np.arange(config.batch.clips_per_step) % NUM_CLASSES
    labels[::2] = -1
    learner.step(Position(), blocks, [labels], 1e-3, sums)
    assert float(means(sums.values)["ce"]) == pytest.approx(math.log(NUM_CLASSES), rel=0.25)


def test_sums_of_a_checkpoint_of_before_lack_the_clips_without_a_label() -> None:
    assert means({"clips": 8.0, "damaged_clips": 2.0, "loss": 12.0}) == {"loss": 2.0}
