"""Computes log-mel statistics of a clip, and of a prepared source under a front end other than its ingest's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from unfused_ray.audio.decode import AudioError, read_flac
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import FrontEndConfig
from unfused_ray.data.parts.executor import IN_PROCESS, Executor
from unfused_ray.data.shards.format import Manifest, Statistics, refuse_other_rate, save_statistics
from unfused_ray.data.shards.index import Unit, read_unit, units_of
from unfused_ray.machine.threads import one_thread
from unfused_ray.progress import Progress


@torch.inference_mode()
def clip_statistics(log_mel: LogMel, pcm: np.ndarray) -> Statistics:
    """Sum all log-mel values of one whole clip, (samples,) int16, in float64."""
    values = log_mel(torch.from_numpy(pcm)[None]).double()
    return Statistics(values.numel(), values.sum().item(), values.square().sum().item())


def compute_statistics(manifest: Manifest, front_end: FrontEndConfig, executor: Executor = IN_PROCESS) -> Statistics:
    """Return log-mel statistics of a manifest's shards; compute missing ones and store them beside the manifest.

    Every executor gives the same sums, bit for bit.

    Args:
        manifest: the prepared source, or some splits of it.
        front_end: settings of the log-mels.
        executor: runs the sums of each shard.

    Raises:
        ValueError: the front end has another sample rate than the shards, or a clip of a shard is damaged.
    """
    if found := manifest.statistics(front_end):
        return found
    refuse_other_rate([manifest], front_end.sample_rate, "front_end.sample_rate")
    shards = list(manifest.shards)
    missing = [number for number, shard in enumerate(shards) if front_end.digest() not in shard.statistics]
    tasks = ((units_of(manifest, shards[number]), front_end) for number in missing)
    done = 0
    with (
        executor.open(),
        Progress("statistics", sum(shards[number].num_clips for number in missing), "clips") as bar,
        executor.run(_sum_units, tasks) as results,
    ):
        for index, sums in results:
            shard = shards[missing[index]]
            shards[missing[index]] = replace(shard, statistics={**shard.statistics, front_end.digest(): sums})
            done += shard.num_clips
            bar.update(done)
    complete = replace(manifest, shards=tuple(shards))
    save_statistics(complete, front_end)
    total = complete.statistics(front_end)
    assert total is not None  # no shard lacks them now
    return total


def _sum_units(units: list[Unit], front_end: FrontEndConfig) -> Statistics:
    log_mel = LogMel(front_end)
    total = Statistics()
    with one_thread():  # the last bits depend on the number of threads
        for unit in units:
            clips = read_unit(unit, ["audio", "num_samples"])
            for data, num_samples in zip(clips["audio"].to_pylist(), clips["num_samples"].to_pylist(), strict=True):
                try:
                    pcm = read_flac(data, 0, num_samples)
                except AudioError as error:
                    raise ValueError(
                        f"{unit.uri}, row group {unit.row_group}, holds a damaged clip ({error}): copy the shard "
                        "again, or prepare its source again"
                    ) from error
                total += clip_statistics(log_mel, pcm)
    return total
