"""The ingest of a source: checked, described, and run shard by shard until the manifest signs it."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Group

from unfused_ray import paths, storage
from unfused_ray.config import WHOLE_CLIPS, PrepareConfig
from unfused_ray.data.parts.default_executor import default_executor
from unfused_ray.data.parts.driver import PartedJob, write_parts
from unfused_ray.data.parts.executor import Executor
from unfused_ray.data.parts.ledger import delete_reports, refuse_difference
from unfused_ray.data.parts.rejects import Reject, in_words
from unfused_ray.data.shards.format import MANIFEST, Manifest, Shard
from unfused_ray.data.shards.layout import REPORTS, ShardLayout, stored
from unfused_ray.data.shards.write import ShardClips, ShardWriter
from unfused_ray.data.sources.find import find
from unfused_ray.data.sources.items import Listing
from unfused_ray.data.sources.lape.registry import data_root, list_task
from unfused_ray.data.sources.listing import list_source
from unfused_ray.lease import refuse_in_use
from unfused_ray.progress import summary

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class IngestPlan:
    """An ingest whose source has been listed, or whose output is finished."""

    config: PrepareConfig
    """Configuration with absolute paths, and with the settings that a task decides."""
    executor: Executor
    finished: Manifest | None
    """The manifest of an output that is finished; its source is not listed."""
    listing: Listing
    layout: ShardLayout | None
    """None if the output is finished."""


def check(config: PrepareConfig) -> IngestPlan:
    """List the source and lay out the shards; nothing is written.

    Raises:
        FileNotFoundError: the source is not there.
        ValueError: a path cannot be used, the source holds no audio, or the output was prepared differently.
        InUseError: another process works on the output.
    """
    config, executor = _resolved(config), default_executor()
    if (manifest := _finished(config)) is not None:
        return IngestPlan(config, executor, manifest, Listing.from_rows([]), None)
    refuse_in_use(config.output)
    listing = _list(config, executor)
    return IngestPlan(config, executor, None, listing, _layout(config, listing))


def describe(plan: IngestPlan) -> Group:
    """Summarise an ingest without starting it."""
    config, listing, layout = plan.config, plan.listing, plan.layout
    if layout is None:
        assert plan.finished is not None
        return summary(f"{config.output} is already prepared: nothing to do", _rows(plan.finished))
    labelled = Counter(
        split
        for split, labels in zip(layout.items["split"].to_pylist(), layout.items["labels"].to_pylist(), strict=True)
        if labels
    )
    rows: dict[str, float | str] = {
        "files": len(set(listing.items["uri"].to_pylist())),
        "clips found": len(listing.items),
        **{f"set aside: {reason}": n for reason, n in Counter(reject.reason for reject in listing.rejects).items()},
    }
    if config.fraction < 1:
        rows[f"clips of fraction {config.fraction:g}"] = len(layout.items)
    for split, count in Counter(layout.items["split"].to_pylist()).items():
        rows[_of_split(split)] = f"{count:,} ({labelled[split]:,} labelled)"
    rows |= {"shards": len(layout.shards), "shards finished before": layout.ledger.num_finished()}
    return summary(f"would prepare {config.output}; a dry run writes nothing", rows)


def run(plan: IngestPlan) -> Manifest:
    """Write the shards; on an output that is finished, only a preview is made if the configuration asks for it.

    An interrupted ingest resumes behind its finished shards and ends with the same bytes. A bad clip is set aside with
    its reason in ``rejects.parquet``; what is wrong with others is in ``warnings.parquet``.

    Raises:
        InUseError: another process works on the output, or has taken it over.
        ValueError: none of the clips can be used, or a path is of one machine where the cluster has several.
    """
    config, manifest = plan.config, plan.finished
    if plan.layout is not None:
        start = time.monotonic()
        reads = {"root": config.root} if config.task else {"source": config.source}
        with plan.executor.open():
            plan.executor.refuse_impossible({**reads, "output": config.output})
            manifest = _ingest(plan.layout, plan.listing.rejects, plan.executor)
        logger.info("%d clips in %.0f s", manifest.num_clips, time.monotonic() - start)
    else:
        logger.info("%s is already prepared: nothing to do", config.output)
    assert manifest is not None  # finished before, or now
    delete_reports(config.output, REPORTS)  # the manifest now says all that these did
    if config.preview:
        from unfused_ray.data.shards.preview import write_preview  # matplotlib takes a second to import

        logger.info("a preview: %s", write_preview(manifest, config.front_end, config.seed))
    return manifest


def describe_manifest(manifest: Manifest) -> Group:
    """Summarise prepared shards."""
    return summary(f"prepared {manifest.uri}", _rows(manifest))


def _rows(manifest: Manifest) -> dict[str, float | str]:
    return {
        "clips": manifest.num_clips,
        **{_of_split(split): count for split, count in manifest.clips_by_split.items()},
        "hours": manifest.seconds / 3600,
        "shards": len(manifest.shards),
        "row groups": sum(len(shard.row_groups) for shard in manifest.shards),
        "megabytes": sum(shard.num_bytes for shard in manifest.shards) / 1e6,
        **{f"set aside: {reason}": count for reason, count in manifest.rejects.items()},
        **{f"kept, but {reason}": count for reason, count in manifest.warnings.items()},
    }


def _resolved(config: PrepareConfig) -> PrepareConfig:
    """Return the configuration with absolute paths, and with the settings that a task decides."""
    config = paths.check(config)
    return config.replace(root=data_root(config.root), **WHOLE_CLIPS) if config.task else config


def _finished(config: PrepareConfig) -> Manifest | None:
    """Return the manifest of an output that is finished; None if it is not.

    Raises:
        ValueError: the output was prepared differently.
    """
    if not storage.exists(storage.join(config.output, MANIFEST)):
        return None
    manifest = Manifest.load(config.output)
    refuse_difference(config.output, manifest.config, stored(config))
    return manifest


def _list(config: PrepareConfig, executor: Executor) -> Listing:
    if config.task:
        logger.info("reading %s", config.reads)
        return list_task(config.task, config.root)
    source = find(config.source)
    logger.info("reading %s (%s)", config.source, source.kind)
    return list_source(source, executor)


def _layout(config: PrepareConfig, listing: Listing) -> ShardLayout:
    if not len(listing.items):
        first = [f"; {reject.key}: {reject.detail}" for reject in listing.rejects[:1]]
        raise ValueError(f"source {config.reads} holds no clips{in_words(listing.rejects)}{''.join(first)}")
    layout = ShardLayout.of(config, listing.items)
    if not len(layout.items):
        raise ValueError(f"fraction={config.fraction:g} takes none of the {len(listing.items)} clips of {config.reads}")
    layout.ledger.check_begun()
    return layout


def _ingest(layout: ShardLayout, listing_rejects: Sequence[Reject], executor: Executor) -> Manifest:
    def clips_of_shards() -> Iterator[ShardClips]:
        for shard in layout.shards:
            items = layout.items.take(list(range(shard.start, shard.stop)))  # a slice would carry the whole table
            yield ShardClips(items, shard.max_rows)

    def sign(shards: tuple[Shard, ...], rejects: dict[str, int], warnings: dict[str, int]) -> Manifest:
        manifest = Manifest(layout.config.output, shards, rejects, stored(layout.config), warnings)
        manifest.save()
        return manifest

    job = PartedJob(
        "ingest",
        layout.ledger,
        clips_of_shards(),
        [shard.num_clips for shard in layout.shards],
        listing_rejects,
        ShardWriter(layout.config),
        Shard,
    )
    return write_parts(job, executor, lambda: _finished(layout.config), sign)


def _of_split(split: str) -> str:
    return f"clips of split {split}" if split else "clips without a split"
