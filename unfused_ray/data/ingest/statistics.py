"""Log-mel statistics: of a clip, and of a prepared source for another front end than it was prepared with."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import islice

import numpy as np
import ray
import torch

from unfused_ray import storage
from unfused_ray.audio.decode import read_flac
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import FrontEndConfig
from unfused_ray.data.ingest.parallel import run_bounded
from unfused_ray.data.shards import ClipIndex, Manifest, Statistics, Unit, read_unit, statistics_uri
from unfused_ray.progress import Progress


@torch.inference_mode()
def clip_statistics(log_mel: LogMel, pcm: np.ndarray) -> Statistics:
    """Sums in float64 over all log-mel values of one whole clip, (samples,) int16."""
    values = log_mel(torch.from_numpy(pcm)[None]).double()
    return Statistics(values.numel(), values.sum().item(), values.square().sum().item())


def compute_statistics(manifest: Manifest, front_end: FrontEndConfig) -> Statistics:
    """Log-mel statistics of a prepared source: those it has, or computed in parallel and stored beside its manifest.

    Raises:
        ValueError: the front end wants another sample rate than the shards have.
    """
    if found := manifest.statistics.get(front_end.digest()):
        return found
    sample_rate = manifest.config["front_end"]["sample_rate"]
    if front_end.sample_rate != sample_rate:
        raise ValueError(
            f"front_end.sample_rate={front_end.sample_rate} Hz, but the shards of {manifest.uri} are at {sample_rate} "
            "Hz: prepare the source again at the other rate"
        )
    parts = [Statistics()] * len(manifest.shards)
    units = iter(ClipIndex([manifest]).units)
    arguments = ((list(islice(units, len(shard.row_groups))), front_end) for shard in manifest.shards)
    done = 0
    with Progress("statistics", manifest.num_clips, "clips") as bar:
        for index, part in run_bounded(_units_statistics, arguments):
            parts[index] = part
            done += manifest.shards[index].num_clips
            bar.update(done)
    total = sum(parts, Statistics())
    content = {"checksum": manifest.checksum, "statistics": {front_end.digest(): asdict(total)}}
    storage.write_bytes(statistics_uri(manifest.uri, front_end.digest()), json.dumps(content, indent=1).encode())
    return total


@ray.remote(num_cpus=1, max_retries=3, retry_exceptions=[OSError])
def _units_statistics(units: list[Unit], front_end: FrontEndConfig) -> Statistics:
    log_mel = LogMel(front_end)
    total = Statistics()
    for unit in units:
        clips = read_unit(unit, ["audio", "num_samples"])
        for data, num_samples in zip(clips["audio"].to_pylist(), clips["num_samples"].to_pylist(), strict=True):
            total += clip_statistics(log_mel, read_flac(data, 0, num_samples))
    return total
