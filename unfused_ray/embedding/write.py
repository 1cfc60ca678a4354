"""One part of the vectors: read its clips, embed them, and write them with a report."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch

from unfused_ray import storage
from unfused_ray.config import EmbedConfig
from unfused_ray.data.shards.ledger import Ledger
from unfused_ray.data.shards.rejects import Reject
from unfused_ray.embedding.clips import read_out
from unfused_ray.embedding.parts import Clip, Part
from unfused_ray.embedding.vectors import PartFile, PartReport
from unfused_ray.embedding.waves import embed_waves, windows
from unfused_ray.models.export import FrozenEncoder

# A row group is what is in memory at once: 32 MB of vectors of 2,048 values, and 32 MB of audio.
_ROW_GROUP_VECTORS = 4096
_ROW_GROUP_SAMPLES = 1 << 24


@dataclass(frozen=True)
class PartWriter:
    """What the tasks of a job have in common."""

    config: EmbedConfig
    schema: pa.Schema
    ledger: Ledger
    """Of the finished parts."""
    encoder: ray.ObjectRef
    """Of a :class:`FrozenEncoder`."""


@ray.remote(num_cpus=1, max_retries=3, retry_exceptions=[OSError])
def write_part(number: int, part: Part, writer: PartWriter) -> PartReport:
    """Write part ``number`` of an output, unless an earlier run has: then its bytes are checked.

    Raises:
        OSError: the source's or the output's object store does not answer.
    """
    if (finished := writer.ledger.finished(number)) is not None:
        return PartReport.from_json(finished)
    encoder = _encoder(writer.encoder, "cuda" if writer.config.gpus_per_task else "cpu")
    report = write_vectors(f"part-{number:05d}.parquet", part, encoder, writer.config, writer.schema)
    writer.ledger.finish(number, report.file.file, report.file.sha256, asdict(report))
    return report


@functools.lru_cache(maxsize=1)
def _encoder(reference: ray.ObjectRef, device: str) -> FrozenEncoder:
    """The encoder, fetched once a process: a part of short clips takes little longer than that."""
    torch.set_num_threads(1)  # a task has one CPU
    return ray.get(reference).to(device)


class _Window(NamedTuple):
    """A row to be: samples ``start`` to ``stop`` of a piece."""

    clip: Clip
    start: int
    stop: int


def write_vectors(file: str, part: Part, encoder: FrozenEncoder, config: EmbedConfig, schema: pa.Schema) -> PartReport:
    """Write the vectors of a part. Memory is bounded by a row group and a piece of a clip.

    Args:
        file: its name in the output.
        part: what to embed.
        encoder: on the device to compute on.
        config: of the job.
        schema: of the file, see :func:`vector_schema`.
    """
    rejects: list[Reject] = []
    num_clips = num_vectors = 0
    with storage.open_output(storage.join(config.output, file)) as output:
        with pq.ParquetWriter(output, schema, compression="zstd", use_dictionary=["key", "split"]) as parquet:
            for group in _row_groups(part, encoder, config, rejects):
                num_clips += sum(window.start == window.clip.start == 0 for window in group)
                num_vectors += len(group)
                parquet.write_table(_table(group, encoder, config, schema), row_group_size=len(group))
        num_bytes = output.tell()
        output.seek(0)
        digest = storage.sha256_stream(output)
    return PartReport(PartFile(file, num_clips, num_vectors, num_bytes, digest), tuple(rejects))


def _row_groups(
    part: Part, encoder: FrozenEncoder, config: EmbedConfig, rejects: list[Reject]
) -> Iterator[list[_Window]]:
    """The windows of all clips, in their order; clips that are set aside are added to ``rejects``."""
    sample_rate = encoder.log_mel.config.sample_rate
    length = math.ceil(config.window_seconds * sample_rate)
    hop = math.ceil(config.hop_seconds * sample_rate) or length
    group: list[_Window] = []
    num_samples = 0
    for clip in part.clips(sample_rate, config.max_seconds):
        if isinstance(clip, Reject):
            rejects.append(clip)
            continue
        group += [_Window(clip, start, stop) for start, stop in windows(len(clip.pcm), length, hop)]
        num_samples += len(clip.pcm)
        if len(group) >= _ROW_GROUP_VECTORS or num_samples >= _ROW_GROUP_SAMPLES:
            yield group
            group, num_samples = [], 0
    if group:
        yield group


def _table(group: list[_Window], encoder: FrozenEncoder, config: EmbedConfig, schema: pa.Schema) -> pa.Table:
    sample_rate, cut = encoder.log_mel.config.sample_rate, encoder.encoder.config.cut
    dim = schema.field("vector").type.list_size
    vectors_ND = np.empty((len(group), dim), np.float32)
    waves = ((number, window.clip.pcm[window.start : window.stop]) for number, window in enumerate(group))
    for numbers, layers in embed_waves(encoder, waves):
        vectors_ND[numbers] = read_out(layers, cut, config.readout)
    columns: dict[str, Any] = {
        "clip_id": [window.clip.clip_id for window in group],
        "key": [window.clip.key for window in group],
        "split": [window.clip.split for window in group],
        "start_seconds": [(window.clip.start + window.start) / sample_rate for window in group],
        "end_seconds": [(window.clip.start + window.stop) / sample_rate for window in group],
        "vector": pa.FixedSizeListArray.from_arrays(vectors_ND.reshape(-1), type=schema.field("vector").type),
    }
    return pa.table(columns, schema)
