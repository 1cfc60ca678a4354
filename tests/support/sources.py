"""Writes small prepared sources, without Ray."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unfused_ray import storage
from unfused_ray.audio.decode import encode_flac
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import FrontEndConfig, PrepareConfig
from unfused_ray.data.shards.format import SCHEMA, Manifest, Shard, Statistics
from unfused_ray.data.shards.statistics import clip_statistics


def tone(seed: int, num_samples: int, sample_rate: int = 16_000) -> np.ndarray:
    """Return a tone of one of eight pitches in a little noise, int16; clips of different pitches can be told apart."""
    rng = np.random.default_rng(seed)
    time = np.arange(num_samples) / sample_rate
    wave = np.sin(2 * np.pi * 220 * 2 ** (seed % 8 / 2) * time) * rng.uniform(0.2, 0.8)
    return np.round((wave + rng.normal(0, 0.02, num_samples)) * 20_000).astype(np.int16)


def write_source(
    folder: Path,
    sizes: list[list[int]],
    lengths: tuple[int, ...] = (4_000, 9_000, 20_000),
    splits: Sequence[str] | None = None,
    damaged: Sequence[int] = (),
) -> Manifest:
    """Write a prepared source; each entry of ``sizes`` lists the row groups of a shard.

    Clip ``i`` is ``tone(i, lengths[i % len(lengths)])`` with the label ``i % 8``. ``splits`` names each shard's split;
    by default shards have none. The audio of the clips ``damaged`` cannot be decoded.
    """
    front_end = FrontEndConfig()
    log_mel = LogMel(front_end)
    shards, clip = [], 0
    for number, (row_groups, split) in enumerate(zip(sizes, splits or [""] * len(sizes), strict=True)):
        rows, statistics, num_samples = [], Statistics(), 0
        for _ in range(sum(row_groups)):
            pcm = tone(clip, lengths[clip % len(lengths)])
            statistics += clip_statistics(log_mel, pcm)
            num_samples += len(pcm)
            rows.append(
                {
                    "audio": b"not audio" if clip in damaged else encode_flac(pcm, front_end.sample_rate),
                    "num_samples": len(pcm),
                    "key": f"clip-{clip}",
                    "labels": [str(clip % 8)],
                    "split": split,
                    "group": "",
                }
            )
            clip += 1
        buffer = io.BytesIO()
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        with pq.ParquetWriter(buffer, SCHEMA) as writer:
            first = 0
            for size in row_groups:
                writer.write_table(table.slice(first, size), row_group_size=size)
                first += size
        data = buffer.getvalue()
        shard = Shard(
            file=f"{number:05d}.parquet",
            split=split,
            row_groups=tuple(row_groups),
            seconds=num_samples / front_end.sample_rate,
            num_bytes=len(data),
            sha256=storage.sha256(data),
            statistics={front_end.digest(): statistics},
        )
        storage.write_bytes(storage.join(str(folder), shard.file), data)
        shards.append(shard)
    config = PrepareConfig(source="tones", output=str(folder)).model_dump(mode="json")
    manifest = Manifest(str(folder), tuple(shards), {}, config)
    manifest.save()
    return manifest
