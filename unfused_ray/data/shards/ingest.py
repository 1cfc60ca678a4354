"""The driver of an ingest: list the source, plan the shards, write them in parallel, and sign with the manifest."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from unfused_ray import storage
from unfused_ray.config import WHOLE_CLIPS, PrepareConfig
from unfused_ray.data.parts.default_executor import default_executor
from unfused_ray.data.parts.driver import PartedJob, write_parts
from unfused_ray.data.parts.executor import Executor
from unfused_ray.data.parts.ledger import delete_reports, refuse_difference
from unfused_ray.data.parts.rejects import Reject, in_words
from unfused_ray.data.shards.format import MANIFEST, Manifest, Shard
from unfused_ray.data.shards.plan import REPORTS, Plan, stored
from unfused_ray.data.shards.write import ShardClips, ShardWriter
from unfused_ray.data.sources.find import find
from unfused_ray.data.sources.items import Listing
from unfused_ray.data.sources.lape.registry import data_root, list_task
from unfused_ray.data.sources.listing import list_source
from unfused_ray.progress import print_summary

logger = logging.getLogger(__name__)


def prepare(config: PrepareConfig, dry_run: bool = False) -> Manifest | None:
    """Make shards of any audio; on an output that is finished, nothing is done.

    An interrupted ingest goes on from its finished shards and ends with the same bytes. A bad clip is set aside with
    its reason in ``rejects.parquet``. What was done, or with ``dry_run`` what would be, is printed.

    Args:
        config: what to read, and how to write it.
        dry_run: only list the source; nothing is written.

    Returns:
        The manifest; None where a dry run found that there is something to do.

    Raises:
        FileNotFoundError: the source is not there.
        ValueError: the source holds no audio, none of it can be used, or the output was prepared differently.
    """
    config = _resolved(config)
    start = time.monotonic()
    figures: dict[str, float | str] = {}
    if storage.exists(storage.join(config.output, MANIFEST)):
        manifest = Manifest.load(config.output)
        refuse_difference(config.output, manifest.config, stored(config))
        title = f"{config.output} is already prepared: nothing to do"
    else:
        executor = default_executor()
        listing = _list(config, executor)
        plan = _plan(config, listing)
        if dry_run:
            _print_plan(listing, plan)
            return None
        manifest = _ingest(plan, listing.rejects, executor)
        seconds = time.monotonic() - start
        figures |= {"seconds": round(seconds), "clips/s": manifest.num_clips / seconds}
        title = f"prepared {config.output}"
    if not dry_run:
        delete_reports(config.output, REPORTS)  # the manifest now says all that these did
        if config.preview:
            from unfused_ray.data.shards.preview import write_preview  # matplotlib takes a second to import

            figures["preview"] = write_preview(manifest, config.front_end, config.seed)
    _print_summary(title, manifest, figures)
    return manifest


def _resolved(config: PrepareConfig) -> PrepareConfig:
    """The configuration with paths that do not depend on the working directory, and with what a task decides."""
    for field in ("output",) if config.task else ("source", "output"):
        if not getattr(config, field):
            raise ValueError(f"{field}='' names nothing: give a path or a URI, --{field} …")
    output = storage.absolute(config.output)
    if config.task:
        return config.replace(output=output, root=data_root(config.root), **WHOLE_CLIPS)
    return config.replace(output=output, source=storage.absolute(config.source))


def _list(config: PrepareConfig, executor: Executor) -> Listing:
    if config.task:
        logger.info("reading %s", config.reads)
        return list_task(config.task, config.root)
    source = find(config.source)
    logger.info("reading %s (%s)", config.source, source.kind)
    return list_source(source, executor)


def _plan(config: PrepareConfig, listing: Listing) -> Plan:
    if not len(listing.items):
        first = [f"; {reject.key}: {reject.detail}" for reject in listing.rejects[:1]]
        raise ValueError(f"source {config.reads} holds no clips{in_words(listing.rejects)}{''.join(first)}")
    plan = Plan.of(config, listing.items)
    if not len(plan.items):
        raise ValueError(f"fraction={config.fraction:g} takes none of the {len(listing.items)} clips of {config.reads}")
    plan.ledger.check_begun()
    return plan


def _ingest(plan: Plan, listing_rejects: Sequence[Reject], executor: Executor) -> Manifest:
    def clips_of_shards() -> Iterator[ShardClips]:
        for shard in plan.shards:
            items = plan.items.take(list(range(shard.start, shard.stop)))  # a slice would carry the whole table
            yield ShardClips(items, shard.max_rows)

    def sign(shards: tuple[Shard, ...], rejects: dict[str, int]) -> Manifest:
        manifest = Manifest(plan.config.output, shards, rejects, stored(plan.config))
        manifest.save()
        return manifest

    job = PartedJob(
        "ingest",
        plan.ledger,
        clips_of_shards(),
        [shard.num_clips for shard in plan.shards],
        listing_rejects,
        ShardWriter(plan.config),
        Shard,
    )
    return write_parts(job, executor, sign)


def _print_plan(listing: Listing, plan: Plan) -> None:
    labelled = Counter(
        split
        for split, labels in zip(plan.items["split"].to_pylist(), plan.items["labels"].to_pylist(), strict=True)
        if labels
    )
    rows: dict[str, float | str] = {
        "files": len(set(listing.items["uri"].to_pylist())),
        "clips found": len(listing.items),
        **{f"set aside: {reason}": n for reason, n in Counter(reject.reason for reject in listing.rejects).items()},
    }
    if plan.config.fraction < 1:
        rows[f"clips of fraction {plan.config.fraction:g}"] = len(plan.items)
    for split, count in Counter(plan.items["split"].to_pylist()).items():
        rows[_of_split(split)] = f"{count:,} ({labelled[split]:,} labelled)"
    rows |= {"shards": len(plan.shards), "shards finished before": plan.ledger.num_finished()}
    print_summary(f"would prepare {plan.config.output}; a dry run writes nothing", rows)


def _print_summary(title: str, manifest: Manifest, figures: dict[str, float | str]) -> None:
    rows: dict[str, float | str] = {
        "clips": manifest.num_clips,
        **{_of_split(split): count for split, count in manifest.clips_by_split.items()},
        "hours": manifest.seconds / 3600,
        "shards": len(manifest.shards),
        "row groups": sum(len(shard.row_groups) for shard in manifest.shards),
        "megabytes": sum(shard.num_bytes for shard in manifest.shards) / 1e6,
        **{f"set aside: {reason}": count for reason, count in manifest.rejects.items()},
        **figures,
    }
    print_summary(title, rows)


def _of_split(split: str) -> str:
    return f"clips of split {split}" if split else "clips without a split"
