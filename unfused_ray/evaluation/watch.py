"""Scores a network on some labelled clips while it trains, beside random networks of its shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import QUICK_MEASURES, EncoderConfig, FrontEndConfig, WatchedMeasure
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.embedding.clips import read_clips, read_out
from unfused_ray.embedding.random_network import random_encoder
from unfused_ray.embedding.waves import embed_spectrograms, spectrograms
from unfused_ray.evaluation.probes.clips import Labelled
from unfused_ray.evaluation.probes.probe import validate
from unfused_ray.evaluation.protocol import load_protocol
from unfused_ray.evaluation.watched_clips import WatchedTask
from unfused_ray.models.encoder import AudioNTT2020

RANDOM_SEEDS = (0, 1, 2)
"""Seeds of the random networks: the first seeds of a table's random networks."""
_CALIBRATION_CLIPS = 1024
"""Smallest number of training clips for the batch norms of random networks; if there are fewer, all, as in a table."""

Scores = dict[str, dict[WatchedMeasure, float]]
"""Accuracies in shares of 1, by task and measure."""


class _WatchedClips(NamedTuple):
    """A task's clips in memory, and their labels for a probe."""

    batches: list[tuple[list[int], Tensor]]
    """Positions of clips, and their log-mels, (B, F, T) float32."""
    labelled: Labelled


class Watch:
    """Scores networks on the validation clips of some tasks, by the default protocol of evaluations.

    The clips are decoded once, and their log-mels stay in memory: 26 kB per second of audio with the default front end.

    Args:
        tasks: the tasks, with the clips to score.
        front_end: front end of all networks; log-mels are normalised by each task's training split.
        device: device that embeds.

    Raises:
        ValueError: every train clip or every valid clip of a task is damaged.
        OSError: a shard is missing, or its storage does not answer.
    """

    def __init__(self, tasks: Sequence[WatchedTask], front_end: FrontEndConfig, device: torch.device) -> None:
        self._tasks, self._front_end, self._device = tasks, front_end, device
        self._protocol = load_protocol().config
        self._heard = [self._hear(watched) for watched in tasks]

    def look(self, encoder: AudioNTT2020) -> Scores:
        """Return the scores of a network, which this freezes.

        Raises:
            ValueError: no training clip has a finite vector.
        """
        frozen = encoder.requires_grad_(False).eval()
        return {
            watched.task.name: self._score(frozen, heard)
            for watched, heard in zip(self._tasks, self._heard, strict=True)
        }

    def look_at_random(self, shape: EncoderConfig) -> Scores:
        """Return the mean scores of random networks of a shape, calibrated like those of a table.

        Raises:
            ValueError: a task has fewer than two training clips.
            OSError: a shard is missing, or its storage does not answer.
        """
        scores: Scores = {}
        crop = self._protocol.crop
        for watched, heard in zip(self._tasks, self._heard, strict=True):
            index, statistics = _beginning(watched.task.training), watched.task.statistics(self._front_end)
            of_seeds = [
                self._score(random_encoder(shape, self._front_end, crop, index, statistics, seed).encoder, heard)
                for seed in RANDOM_SEEDS
            ]
            scores[watched.task.name] = {m: float(np.mean([each[m] for each in of_seeds])) for m in QUICK_MEASURES}
        return scores

    def _hear(self, watched: WatchedTask) -> _WatchedClips:
        task, ids = watched.task, watched.clip_ids
        statistics = task.statistics(self._front_end)
        log_mel = LogMel(self._front_end, statistics.mean, statistics.std).to(self._device)
        clips = chain.from_iterable(read_clips(task.index, ids))
        heard = spectrograms(log_mel, self._protocol.crop, clips)
        batches = [(places, log_mels.cpu()) for places, log_mels in heard]  # a GPU's memory belongs to the training
        labelled = Labelled(task.class_ids[ids], task.splits[ids], task.groups[ids], len(task.class_names))
        whole = {labelled.splits[place] for places, _ in batches for place in places}
        for split, count in watched.splits.items():
            if split not in whole:
                raise ValueError(
                    f"watch.data={task.uri}: all {count} watched {split} clips are damaged: copy the source again, "
                    "prepare it again, or watch another one"
                )
        return _WatchedClips(batches, labelled)

    def _score(self, encoder: AudioNTT2020, heard: _WatchedClips) -> dict[WatchedMeasure, float]:
        encoder, cut = encoder.to(self._device), encoder.config.cut
        vectors = [
            read_out(embed_spectrograms(encoder, log_mels.to(self._device)), cut, self._protocol.readout)
            for _, log_mels in heard.batches
        ]
        vectors_ND = np.full((len(heard.labelled.class_ids), vectors[0].shape[1]), np.nan, np.float32)
        vectors_ND[np.concatenate([places for places, _ in heard.batches])] = np.concatenate(vectors)
        found = validate(vectors_ND, heard.labelled, self._protocol.probes, linear=False)
        return {measure: found.accuracy(measure) for measure in QUICK_MEASURES}


def _beginning(index: ClipIndex) -> ClipIndex:
    """Return the first row groups of a source, shuffled by the ingest, with enough clips for calibration."""
    (manifest,), shards, left = index.manifests, [], _CALIBRATION_CLIPS
    for shard in manifest.shards:
        before = np.cumsum([0, *shard.row_groups[:-1]])
        taken = tuple(size for size, first in zip(shard.row_groups, before, strict=True) if first < left)
        if taken:
            shards.append(replace(shard, row_groups=taken))
        left -= sum(taken)
    return ClipIndex([replace(manifest, shards=tuple(shards))])
