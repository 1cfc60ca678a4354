"""The driver of an ingest: list the source, plan the shards, write them in parallel, and sign with the manifest."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from unfused_ray import cluster, storage
from unfused_ray.config import PrepareConfig
from unfused_ray.data.ingest.archives import list_parquet, list_tar
from unfused_ray.data.ingest.items import Listing, Reject, combine, select
from unfused_ray.data.ingest.parallel import run_bounded
from unfused_ray.data.ingest.preview import write_preview
from unfused_ray.data.ingest.sources import Source, find, list_audio, list_csv
from unfused_ray.data.ingest.write import REPORTS, ShardReport, write_shard
from unfused_ray.data.shards import MANIFEST, REJECTS, Manifest, Statistics
from unfused_ray.progress import Progress, print_summary

_MIN_UNITS = 16
_MIN_CLIPS_PER_SHARD = 64
_PLAN = "plan.json"


def prepare(config: PrepareConfig) -> Manifest:
    """Make shards of any audio; on an output that is finished, nothing is done.

    An interrupted ingest goes on from its finished shards and ends with the same bytes. A bad clip is set aside with
    its reason in ``rejects.parquet``.

    Raises:
        FileNotFoundError: the source is not there.
        ValueError: the source holds no audio, none of it can be used, or the output was prepared differently.
    """
    for field in ("source", "output"):
        if not getattr(config, field):
            raise ValueError(f"{field}='' names nothing: give a path or a URI")
    config = config.model_copy(
        update={"source": storage.absolute(config.source), "output": storage.absolute(config.output)}
    )
    start = time.monotonic()
    figures: dict[str, float | str] = {}
    if storage.exists(storage.join(config.output, MANIFEST)):
        manifest = Manifest.load(config.output)
        _refuse_difference(manifest.config, config)
        title = f"{config.output} is already prepared: nothing to do"
    else:
        with cluster.session():
            manifest = _ingest(config)
        seconds = time.monotonic() - start
        figures |= {"seconds": round(seconds), "clips/s": manifest.num_clips / seconds}
        title = f"prepared {config.output}"
    storage.delete(storage.join(config.output, REPORTS))  # the manifest now says all that these did
    if config.preview:
        figures["preview"] = write_preview(manifest, config.front_end, config.seed)
    _print_summary(title, manifest, figures)
    return manifest


def _ingest(config: PrepareConfig) -> Manifest:
    listing = _list(find(config.source))
    items = select(listing.items, config.fraction, config.seed)
    if not len(items):
        raise ValueError(
            f"source {config.source} holds no clips" + _reasons(listing.rejects)
            if not len(listing.items)
            else f"fraction={config.fraction:g} takes none of the {len(listing.items)} clips of {config.source}"
        )
    plan = _plan(config, items)
    reports = _write_shards(config, items, plan)
    rejects = [*listing.rejects, *(reject for report in reports for reject in report.rejects)]
    _write_rejects(config.output, rejects)
    shards = tuple(report.shard for report in reports if report.shard is not None)
    if not shards:
        raise ValueError(
            f"none of the {len(items)} clips of {config.source} can be used{_reasons(rejects)}; "
            f"see {storage.join(config.output, REJECTS)}"
        )
    manifest = Manifest(
        uri=config.output,
        shards=shards,
        seconds=sum(report.seconds for report in reports),
        rejects=dict(sorted(Counter(reject.reason for reject in rejects).items())),
        statistics={config.front_end.digest(): sum((report.statistics for report in reports), Statistics())},
        config=_stored(config),
    )
    manifest.save()
    return manifest


def _list(source: Source) -> Listing:
    """All clips of a source: archives in parallel tasks, which see many small parts of big files."""
    if source.kind == "audio":
        return combine([list_audio(source)])
    if source.kind == "csv":
        return combine([list_csv(uri, len(source.files) > 1) for uri in source.files])
    listings: list[Listing] = [Listing.from_rows([])] * len(source.files)
    with Progress("listing", len(source.files), f"{source.kind} files") as bar:
        results = run_bounded(_list_archive, ((source.kind, uri) for uri in source.files))
        for done, (index, listing) in enumerate(results, start=1):
            listings[index] = listing
            bar.update(done)
    return combine(listings)


@ray.remote(num_cpus=1, max_retries=3, retry_exceptions=[OSError])
def _list_archive(kind: str, uri: str) -> Listing:
    return list_tar(uri) if kind == "tar" else list_parquet(uri)


def _plan(config: PrepareConfig, items: pa.Table) -> str:
    """Digest of what will be written; refused where another plan has begun in the output."""
    digest = hashlib.sha256(json.dumps(_stored(config), sort_keys=True).encode())
    for column in ("key", "uri"):
        for value in items[column].to_pylist():
            digest.update(value.encode() + b"\0")
    plan = digest.hexdigest()
    uri = storage.join(config.output, REPORTS, _PLAN)
    if storage.exists(uri):
        begun = json.loads(storage.read_bytes(uri))
        _refuse_difference(begun["config"], config)
        if begun["plan"] != plan:
            raise ValueError(
                f"the clips of {config.source} have changed since the ingest to {config.output} was interrupted: "
                "delete that folder, or name another output"
            )
        storage.delete_unfinished(config.output)
        storage.delete_unfinished(storage.join(config.output, REPORTS))
    else:
        storage.write_bytes(uri, json.dumps({"plan": plan, "config": _stored(config)}, indent=1).encode())
    return plan


def _write_shards(config: PrepareConfig, items: pa.Table, plan: str) -> list[ShardReport]:
    # A small source gets smaller shards and row groups, so that all CPUs and workers have their share.
    share = -(-len(items) // _MIN_UNITS)
    size = min(config.clips_per_shard, max(share, _MIN_CLIPS_PER_SHARD))
    starts = range(0, len(items), size)
    reports: list[ShardReport | None] = [None] * len(starts)
    max_rows = -(-size // -(-size // share))  # equal row groups

    def arguments() -> Iterator[tuple[Any, ...]]:
        for number, first in enumerate(starts):
            part = items.take(list(range(first, min(first + size, len(items)))))  # a slice would carry the whole table
            yield number, part, config, plan, max_rows

    done = num_rejects = 0
    with Progress("ingest", len(items), "clips") as bar:
        for number, report in run_bounded(write_shard, arguments()):
            reports[number] = report
            done += min(size, len(items) - starts[number])
            num_rejects += len(report.rejects)
            bar.update(done, rejected=num_rejects)
    return [report for report in reports if report is not None]


def _write_rejects(output: str, rejects: Sequence[Reject]) -> None:
    table = pa.table(
        {name: pa.array([getattr(reject, name) for reject in rejects], pa.string()) for name in Reject._fields}
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    storage.write_bytes(storage.join(output, REJECTS), buffer.getvalue())


def _stored(config: PrepareConfig) -> dict[str, Any]:
    """The configuration as the manifest keeps it: what decides the bytes, not where they lie."""
    return config.model_dump(mode="json", exclude={"output", "preview"})


def _refuse_difference(before: dict[str, Any], config: PrepareConfig) -> None:
    now = _stored(config)
    differences = [
        f"{field}: {before.get(field)} there, {now.get(field)} asked for"
        for field in sorted(before.keys() | now.keys())
        if before.get(field) != now.get(field)
    ]
    if differences:
        raise ValueError(
            f"{config.output} was prepared differently ({'; '.join(differences)}): "
            "name another output, or delete that folder to prepare it again"
        )


def _reasons(rejects: Sequence[Reject]) -> str:
    counts = Counter(reject.reason for reject in rejects)
    return f" ({', '.join(f'{count} {reason}' for reason, count in counts.most_common())})" if counts else ""


def _print_summary(title: str, manifest: Manifest, figures: dict[str, float | str]) -> None:
    rows: dict[str, float | str] = {
        "clips": manifest.num_clips,
        "hours": manifest.seconds / 3600,
        "shards": len(manifest.shards),
        "row groups": sum(len(shard.row_groups) for shard in manifest.shards),
        "megabytes": sum(shard.num_bytes for shard in manifest.shards) / 1e6,
        **{f"set aside: {reason}": count for reason, count in manifest.rejects.items()},
        **figures,
    }
    print_summary(title, rows)
