"""One shard: decode its clips, and write them with a report that lets an interrupted ingest go on."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any, NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from unfused_ray import storage
from unfused_ray.audio.decode import AudioError, decode, encode_flac, refuse_unusable
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import PrepareConfig
from unfused_ray.data.ingest.fetch import fetch
from unfused_ray.data.ingest.items import Reject, draw
from unfused_ray.data.ingest.statistics import clip_statistics
from unfused_ray.data.shards import SCHEMA, Shard, Statistics

REPORTS = "_ingest"
_SPOOL_BYTES = 64 << 20


@dataclass(frozen=True)
class ShardReport:
    """What became of the clips of one shard."""

    plan: str
    """Digest of the plan that the shard belongs to."""
    shard: Shard | None
    """None where every clip was set aside."""
    rejects: tuple[Reject, ...]

    @classmethod
    def load(cls, uri: str) -> Self:
        """Read a report."""
        raw = json.loads(storage.read_bytes(uri))
        shard = Shard.from_json(raw["shard"]) if raw["shard"] else None
        return cls(raw["plan"], shard, tuple(Reject(*reject) for reject in raw["rejects"]))

    def save(self, uri: str) -> None:
        """Write the report, atomically: from then on the shard counts as finished."""
        storage.write_bytes(uri, json.dumps(asdict(self)).encode())


class _Row(NamedTuple):
    """A clip of the shard: what is said of it, and where its FLAC lies in the spool."""

    key: str
    num_samples: int
    labels: list[str]
    split: str
    group: str
    offset: int
    num_bytes: int


@ray.remote(num_cpus=1, max_retries=3, retry_exceptions=[OSError])
def write_shard(number: int, items: pa.Table, config: PrepareConfig, plan: str, max_rows: int) -> ShardReport:
    """Write shard ``number`` of an output, unless an earlier run has: then its bytes are checked.

    Memory is bounded by a row group and a piece of a clip: the encoded clips lie in a temporary file.

    Args:
        number: of the shard.
        items: the source clips of the shard, rows of ``ITEMS``, all of one split.
        config: of the ingest.
        plan: digest of the plan.
        max_rows: of a row group.

    Raises:
        OSError: the source's or the output's object store does not answer.
    """
    name = f"{number:05d}"
    report_uri = storage.join(config.output, REPORTS, f"{name}.json")
    if (finished := _finished(report_uri, config.output, plan)) is not None:
        return finished
    rejects: list[Reject] = []
    rows: list[_Row] = []
    statistics = Statistics()
    log_mel = LogMel(config.front_end)
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
        for item, source in fetch(items):
            first = len(rows)
            for piece in _pieces(item["key"], source, config):
                if isinstance(piece, Reject):
                    rejects.append(piece)
                    continue
                key, pcm = piece
                flac = encode_flac(pcm, config.front_end.sample_rate)
                statistics += clip_statistics(log_mel, pcm)
                rows.append(_Row(key, len(pcm), item["labels"], item["split"], item["group"], spool.tell(), len(flac)))
                spool.write(flac)
            if len(rows) > first + 1 and not item["group"]:  # pieces of one recording may not cross splits
                rows[first:] = [row._replace(group=item["key"]) for row in rows[first:]]
        rows.sort(key=lambda row: draw(config.seed, row.key))
        shard = _write_parquet(rows, spool, config, f"{name}.parquet", max_rows, statistics) if rows else None
    report = ShardReport(plan, shard, tuple(rejects))
    report.save(report_uri)
    return report


def _finished(report_uri: str, output: str, plan: str) -> ShardReport | None:
    """The report of an earlier run, where its shard is whole."""
    if not storage.exists(report_uri):
        return None
    report = ShardReport.load(report_uri)
    if report.plan != plan:
        return None
    if report.shard is not None:
        uri = storage.join(output, report.shard.file)
        if not storage.exists(uri) or storage.sha256_file(uri) != report.shard.sha256:
            return None
    return report


def _pieces(key: str, source: IO[bytes] | AudioError, config: PrepareConfig) -> Iterator[tuple[str, Any] | Reject]:
    """The usable pieces of one clip with their keys: ``key``, ``key@10`` (from second 10) …; and why others are not."""
    rate = config.front_end.sample_rate
    max_samples = round(config.max_seconds * rate)
    piece_key = key
    try:
        if isinstance(source, AudioError):
            raise source
        for number, pcm in enumerate(decode(source, rate, max_samples)):
            piece_key = f"{key}@{number * max_samples / rate:g}" if number else key
            try:
                refuse_unusable(pcm, rate, config.min_seconds, config.silence_peak)
                yield piece_key, pcm
            except AudioError as error:
                yield Reject(piece_key, error.reason, error.detail)
            if config.long_clips == "truncate":
                return
    except AudioError as error:
        yield Reject(piece_key, error.reason, error.detail)


def _write_parquet(
    rows: Sequence[_Row], spool: Any, config: PrepareConfig, file: str, max_rows: int, statistics: Statistics
) -> Shard:
    row_groups: list[int] = []
    max_bytes = config.row_group_megabytes * 1e6
    with storage.open_output(storage.join(config.output, file)) as output:
        # No column statistics: they would repeat whole clips in the footer. FLAC does not compress further.
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


def _table(rows: Sequence[_Row], spool: Any) -> pa.Table:
    def audio(row: _Row) -> bytes:
        spool.seek(row.offset)
        return spool.read(row.num_bytes)

    columns = {name: [getattr(row, name) for row in rows] for name in SCHEMA.names if name != "audio"}
    return pa.table({"audio": [audio(row) for row in rows], **columns}, SCHEMA)
