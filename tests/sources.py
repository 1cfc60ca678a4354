"""Small prepared sources for tests, written without Ray."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unfused_ray import storage
from unfused_ray.audio.decode import encode_flac
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import FrontEndConfig, PrepareConfig
from unfused_ray.data.ingest.statistics import clip_statistics
from unfused_ray.data.shards import SCHEMA, Manifest, Shard, Statistics


def tone(seed: int, num_samples: int, sample_rate: int = 16_000) -> np.ndarray:
    """A tone of one of eight pitches in a little noise, int16: clips that can be told apart."""
    rng = np.random.default_rng(seed)
    time = np.arange(num_samples) / sample_rate
    wave = np.sin(2 * np.pi * 220 * 2 ** (seed % 8 / 2) * time) * rng.uniform(0.2, 0.8)
    return np.round((wave + rng.normal(0, 0.02, num_samples)) * 20_000).astype(np.int16)


def write_source(folder: Path, sizes: list[list[int]], lengths: tuple[int, ...] = (4_000, 9_000, 20_000)) -> Manifest:
    """A prepared source with one shard an entry of ``sizes``, of row groups of these sizes.

    Clip ``i`` is ``tone(i, lengths[i % len(lengths)])`` with the label ``i % 8``.
    """
    front_end = FrontEndConfig()
    log_mel = LogMel(front_end)
    shards, statistics, seconds, clip = [], Statistics(), 0.0, 0
    for number, row_groups in enumerate(sizes):
        rows = []
        for _ in range(sum(row_groups)):
            pcm = tone(clip, lengths[clip % len(lengths)])
            statistics += clip_statistics(log_mel, pcm)
            seconds += len(pcm) / front_end.sample_rate
            rows.append(
                {
                    "audio": encode_flac(pcm, front_end.sample_rate),
                    "num_samples": len(pcm),
                    "key": f"clip-{clip}",
                    "labels": [str(clip % 8)],
                    "split": "",
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
        file = f"{number:05d}.parquet"
        storage.write_bytes(storage.join(str(folder), file), data)
        shards.append(Shard(file, tuple(row_groups), len(data), storage.sha256(data)))
    config = PrepareConfig(source="tones", output=str(folder)).model_dump(mode="json")
    manifest = Manifest(str(folder), tuple(shards), seconds, {}, {front_end.digest(): statistics}, config)
    manifest.save()
    return manifest
