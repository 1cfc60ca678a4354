"""Writes one shard: decodes its clips, encodes them as FLAC, and sorts them into row groups."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import IO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from unfused_ray import storage
from unfused_ray.audio.decode import AudioError, encode_flac, refuse_unusable
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import PrepareConfig
from unfused_ray.data.parts.ledger import PartReport
from unfused_ray.data.parts.rejects import Reject, Warned
from unfused_ray.data.shards.format import SCHEMA, Shard, Statistics
from unfused_ray.data.shards.shared import pack, recording_number
from unfused_ray.data.shards.statistics import clip_statistics
from unfused_ray.data.sources.fetch import fetch
from unfused_ray.data.sources.items import draw
from unfused_ray.data.sources.pieces import Piece, pieces

_SPOOL_BYTES = 64 << 20


class ShardClips(NamedTuple):
    """The source clips of one shard. Holds no audio, so it travels to any process."""

    items: pa.Table
    """Rows of ``ITEMS``, all of one split."""
    max_rows: int
    """Largest number of clips in a row group."""


class _Row(NamedTuple):
    """A clip of the shard: its columns, and the place of its FLAC in the spool."""

    key: str
    num_samples: int
    labels: list[str]
    split: str
    group: str
    offset: int
    num_bytes: int
    recording: int


@dataclass(frozen=True)
class WrittenShard:
    """A shard, with its share of the source's summary."""

    shard: Shard
    labels: dict[str, int]
    """Clips of each label; unlabelled clips are under ""."""
    recordings: str
    """Recording number of each clip, packed."""

    @property
    def file(self) -> str:
        """Name within the output."""
        return self.shard.file

    @property
    def sha256(self) -> str:
        """SHA-256 of its bytes."""
        return self.shard.sha256

    @property
    def num_clips(self) -> int:
        """Clips of the shard."""
        return self.shard.num_clips


@dataclass(frozen=True)
class ShardWriter:
    """Writes the shards of an ingest.

    Memory is bounded by one row group, one piece of a clip, and the shard's clips from one row group of the source.
    """

    config: PrepareConfig

    def __call__(self, number: int, clips: ShardClips) -> PartReport[WrittenShard]:
        """Write shard ``number``; set aside clips that cannot be used.

        Raises:
            OSError: the source's or the output's object store does not answer.
        """
        config, rejects, rows, statistics = self.config, list[Reject](), list[_Row](), Statistics()
        warnings: list[Warned] = []
        log_mel = LogMel(config.front_end)
        with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
            for item, source in fetch(clips.items):
                first, found = len(rows), list[Warned]()
                decoded = pieces(item, source, config.front_end.sample_rate, config.max_seconds, found.append)
                for piece in _usable(decoded, config):
                    if isinstance(piece, Reject):
                        rejects.append(piece)
                        continue
                    flac = encode_flac(piece.pcm, config.front_end.sample_rate)
                    statistics += clip_statistics(log_mel, piece.pcm)
                    columns = item["labels"], item["split"], item["group"]
                    recording = recording_number(flac, is_silent=not piece.pcm.any())
                    rows.append(_Row(piece.key, len(piece.pcm), *columns, spool.tell(), len(flac), recording))
                    spool.write(flac)
                if len(rows) > first:  # a clip that is set aside has a reason already
                    warnings += found
                if len(rows) > first + 1 and not item["group"]:  # pieces of one recording must stay in one split
                    rows[first:] = [row._replace(group=item["key"]) for row in rows[first:]]
            rows.sort(key=lambda row: draw(config.seed, row.key))
            file = f"{number:05d}.parquet"
            if not rows:
                return PartReport(None, tuple(rejects), tuple(warnings))
            shard = _write_parquet(rows, spool, config, file, clips.max_rows, statistics)
        labels = Counter(label for row in rows for label in dict.fromkeys(row.labels or [""]))
        written = WrittenShard(shard, dict(labels), pack(row.recording for row in rows))
        return PartReport(written, tuple(rejects), tuple(warnings))


def _usable(found: Iterator[Piece | Reject], config: PrepareConfig) -> Iterator[Piece | Reject]:
    """Yield the pieces of a clip that the ingest takes; pieces that are too short or silent become rejects."""
    for piece in islice(found, 1 if config.long_clips == "truncate" else None):
        if isinstance(piece, Piece):
            try:
                refuse_unusable(piece.pcm, config.front_end.sample_rate, config.min_seconds, config.silence_peak)
            except AudioError as error:
                yield Reject(piece.key, error.reason, error.detail)
                continue
        yield piece


def _write_parquet(
    rows: Sequence[_Row], spool: IO[bytes], config: PrepareConfig, file: str, max_rows: int, statistics: Statistics
) -> Shard:
    row_groups: list[int] = []
    max_bytes = config.row_group_megabytes * 1e6
    with storage.open_output(storage.join(config.output, file)) as output:
        # No column statistics: they would repeat whole clips in the footer. No compression: FLAC does not compress
        # further.
        options = {"compression": "none", "write_statistics": False, "use_dictionary": False}
        with pq.ParquetWriter(output, SCHEMA, **options) as writer:
            for group in _row_groups(rows, max_bytes, max_rows):
                writer.write_table(_table(group, spool), row_group_size=len(group))
                row_groups.append(len(group))
        num_bytes = output.tell()
        output.seek(0)
        digest = storage.sha256_stream(output)
    return Shard(
        file=file,
        split=rows[0].split,
        row_groups=tuple(row_groups),
        seconds=sum(row.num_samples for row in rows) / config.front_end.sample_rate,
        num_bytes=num_bytes,
        sha256=digest,
        statistics={config.front_end.digest(): statistics},
    )


def _row_groups(rows: Sequence[_Row], max_bytes: float, max_rows: int) -> Iterator[Sequence[_Row]]:
    first, num_bytes = 0, 0
    for last, row in enumerate(rows):
        if last > first and (num_bytes + row.num_bytes > max_bytes or last - first >= max_rows):
            yield rows[first:last]
            first, num_bytes = last, 0
        num_bytes += row.num_bytes
    yield rows[first:]


def _table(rows: Sequence[_Row], spool: IO[bytes]) -> pa.Table:
    def audio(row: _Row) -> bytes:
        spool.seek(row.offset)
        return spool.read(row.num_bytes)

    columns = {name: [getattr(row, name) for row in rows] for name in SCHEMA.names if name != "audio"}
    return pa.table({"audio": [audio(row) for row in rows], **columns}, SCHEMA)
