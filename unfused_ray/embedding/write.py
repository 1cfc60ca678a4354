"""Writes one part of the vectors: reads its clips, embeds them, and writes the rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unfused_ray import storage
from unfused_ray.config import EmbedConfig
from unfused_ray.data.parts.ledger import PartReport
from unfused_ray.data.parts.rejects import Reject, Warned
from unfused_ray.embedding.clips import read_out
from unfused_ray.embedding.parts import ClipPiece, Part
from unfused_ray.embedding.vectors import VectorFile, within_source
from unfused_ray.embedding.waves import embed_waves, windows
from unfused_ray.models.frozen import FrozenEncoder

# A row group is held in memory: 32 MB of vectors of 2,048 values, and 32 MB of audio.
_ROW_GROUP_VECTORS = 4096
_ROW_GROUP_SAMPLES = 1 << 24
_REPEATED = ["key", "labels.list.element", "split", "group", "place.uri", "place.column"]
"""Columns whose values repeat in adjacent rows."""


@dataclass(frozen=True)
class PartWriter:
    """Writes the parts of an embedding."""

    config: EmbedConfig
    schema: pa.Schema
    encoder: Callable[[], FrozenEncoder]
    """Fetches the encoder."""

    def __call__(self, number: int, part: Part) -> PartReport[VectorFile]:
        """Write part ``number``; set aside clips that cannot be read.

        Raises:
            OSError: the source's or the output's object store does not answer.
        """
        encoder = _encoder(self.encoder, "cuda" if self.config.gpus_per_task else "cpu")
        return write_vectors(f"part-{number:05d}.parquet", part, encoder, self.config, self.schema)


@functools.lru_cache(maxsize=1)
def _encoder(fetch: Callable[[], FrozenEncoder], device: str) -> FrozenEncoder:
    """Return the encoder, fetched once per process: a part of short clips takes little longer than fetching it."""
    return fetch().to(device)


class _Window(NamedTuple):
    """A row of the output: samples ``start`` to ``stop`` of a piece."""

    piece: ClipPiece
    start: int
    stop: int


def write_vectors(
    file: str, part: Part, encoder: FrozenEncoder, config: EmbedConfig, schema: pa.Schema
) -> PartReport[VectorFile]:
    """Write the vectors of a part. Memory is bounded by a row group and a piece of a clip.

    Args:
        file: name of the file in the output.
        part: clips to embed.
        encoder: computes the vectors, on its device.
        config: settings of the job.
        schema: columns of the file, from :func:`vector_schema`.
    """
    found: list[Reject | Warned] = []
    num_clips = num_vectors = 0
    with storage.open_output(storage.join(config.output, file)) as output:
        with pq.ParquetWriter(output, schema, compression="zstd", use_dictionary=_REPEATED) as parquet:
            for group in _row_groups(part, encoder, config, found):
                num_clips += sum(window.start == window.piece.start == 0 for window in group)
                num_vectors += len(group)
                parquet.write_table(_table(group, encoder, config, schema), row_group_size=len(group))
        num_bytes = output.tell()
        output.seek(0)
        digest = storage.sha256_stream(output)
    rejects = tuple(clip for clip in found if isinstance(clip, Reject))
    warnings = tuple(clip for clip in found if isinstance(clip, Warned))
    return PartReport(VectorFile(file, num_clips, num_vectors, num_bytes, digest), rejects, warnings)


def _row_groups(
    part: Part, encoder: FrozenEncoder, config: EmbedConfig, found: list[Reject | Warned]
) -> Iterator[list[_Window]]:
    """Yield the windows of all clips in order, a row group at a time; add rejects and warnings to ``found``."""
    sample_rate = encoder.log_mel.config.sample_rate
    length = _num_samples(config.window_seconds, sample_rate)
    hop = _num_samples(config.hop_seconds, sample_rate) or length
    group: list[_Window] = []
    num_samples = 0
    for piece in part.pieces(sample_rate, config.max_seconds):
        if not isinstance(piece, ClipPiece):
            found.append(piece)
            continue
        group += [_Window(piece, start, stop) for start, stop in windows(len(piece.pcm), length, hop)]
        num_samples += len(piece.pcm)
        if len(group) >= _ROW_GROUP_VECTORS or num_samples >= _ROW_GROUP_SAMPLES:
            yield group
            group, num_samples = [], 0
    if group:
        yield group


def _num_samples(seconds: float, sample_rate: int) -> int:
    return max(1, round(seconds * sample_rate)) if seconds else 0  # 0 has another meaning


def _table(group: list[_Window], encoder: FrozenEncoder, config: EmbedConfig, schema: pa.Schema) -> pa.Table:
    sample_rate, cut = encoder.log_mel.config.sample_rate, encoder.encoder.config.cut
    dim = schema.field("vector").type.list_size
    vectors_ND = np.empty((len(group), dim), np.float32)
    waves = ((number, window.piece.pcm[window.start : window.stop]) for number, window in enumerate(group))
    for numbers, layers in embed_waves(encoder, waves):
        vectors_ND[numbers] = read_out(layers, cut, config.readout)
    columns: dict[str, Any] = {
        "clip_id": [window.piece.clip_id for window in group],
        "key": [window.piece.key for window in group],
        "labels": [window.piece.labels for window in group],
        "split": [window.piece.split for window in group],
        "group": [window.piece.group for window in group],
        "place": [
            {**window.piece.place, "uri": within_source(window.piece.place["uri"], config.source)} for window in group
        ],
        "start_seconds": [(window.piece.start + window.start) / sample_rate for window in group],
        "end_seconds": [(window.piece.start + window.stop) / sample_rate for window in group],
        "vector": pa.FixedSizeListArray.from_arrays(vectors_ND.reshape(-1), type=schema.field("vector").type),
    }
    return pa.table(columns, schema)
