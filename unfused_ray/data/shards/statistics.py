"""Log-mel statistics: of a clip, and of a prepared source for another front end than it was prepared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch

from unfused_ray.audio.decode import read_flac
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import FrontEndConfig
from unfused_ray.data.shards.format import ClipIndex, Manifest, Statistics, Unit, read_unit, save_statistics
from unfused_ray.progress import Progress

Run = Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], AbstractContextManager[Iterator[tuple[int, Any]]]]
"""Calls a function with each of some arguments; gives pairs of an argument's number and its result as they come."""


@contextmanager
def run_here(function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Iterator[tuple[int, Any]]]:
    """Call the function in this process, one argument after another."""
    yield ((number, function(*values)) for number, values in enumerate(arguments))


@torch.inference_mode()
def clip_statistics(log_mel: LogMel, pcm: np.ndarray) -> Statistics:
    """Sums in float64 over all log-mel values of one whole clip, (samples,) int16."""
    values = log_mel(torch.from_numpy(pcm)[None]).double()
    return Statistics(values.numel(), values.sum().item(), values.square().sum().item())


def compute_statistics(manifest: Manifest, front_end: FrontEndConfig, run: Run = run_here) -> Statistics:
    """Log-mel statistics of a manifest's shards: those they have, or computed and stored beside it.

    Args:
        manifest: of the shards.
        front_end: of the log-mels.
        run: computes the shards that lack them; ``parallel.run_on_ray`` does so on all CPUs of a cluster.

    Raises:
        ValueError: the front end wants another sample rate than the shards have.
    """
    if found := manifest.statistics(front_end):
        return found
    sample_rate = manifest.config["front_end"]["sample_rate"]
    if front_end.sample_rate != sample_rate:
        raise ValueError(
            f"front_end.sample_rate={front_end.sample_rate} Hz, but the shards of {manifest.uri} are at {sample_rate} "
            "Hz: prepare the source again at the other rate"
        )
    shards = list(manifest.shards)
    missing = [number for number, shard in enumerate(shards) if front_end.digest() not in shard.statistics]
    lacking = replace(manifest, shards=tuple(shards[number] for number in missing))
    done = 0
    units = _units_of_shards(lacking, front_end)
    with Progress("statistics", lacking.num_clips, "clips") as bar, run(_units_statistics, units) as results:
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


def _units_of_shards(manifest: Manifest, front_end: FrontEndConfig) -> Iterator[tuple[list[Unit], FrontEndConfig]]:
    units = iter(ClipIndex([manifest]).units)
    for shard in manifest.shards:
        yield list(islice(units, len(shard.row_groups))), front_end


def _units_statistics(units: list[Unit], front_end: FrontEndConfig) -> Statistics:
    log_mel = LogMel(front_end)
    total = Statistics()
    for unit in units:
        clips = read_unit(unit, ["audio", "num_samples"])
        for data, num_samples in zip(clips["audio"].to_pylist(), clips["num_samples"].to_pylist(), strict=True):
            total += clip_statistics(log_mel, read_flac(data, 0, num_samples))
    return total
