"""The ingest of a source: checked, described, and run shard by shard, until the manifest is written."""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
from rich.console import Group
from rich.text import Text

from unfused_ray import paths, storage
from unfused_ray.config import WHOLE_CLIPS, PrepareConfig, differences
from unfused_ray.data.parts.default_executor import default_executor
from unfused_ray.data.parts.driver import PartedJob, write_parts
from unfused_ray.data.parts.executor import IN_PROCESS, Executor
from unfused_ray.data.parts.ledger import changed, delete_reports, refuse_difference, refuse_occupied
from unfused_ray.data.parts.rejects import in_words, told_reasons
from unfused_ray.data.shards.format import MANIFEST, Manifest
from unfused_ray.data.shards.layout import REPORTS, ShardLayout, stored
from unfused_ray.data.shards.shared import find_shared, unpack
from unfused_ray.data.shards.summary import SourceSummary, crossing_groups
from unfused_ray.data.shards.write import ShardClips, ShardWriter, WrittenShard
from unfused_ray.data.sources.find import find
from unfused_ray.data.sources.items import ITEMS, Listing
from unfused_ray.data.sources.lape.registry import data_root, list_task
from unfused_ray.data.sources.listing import list_source
from unfused_ray.data.sources.notes import Notes, first_of
from unfused_ray.data.sources.splits import is_held_out
from unfused_ray.lease import refuse_in_use
from unfused_ray.progress import summary

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class IngestPlan:
    """An ingest whose source has been listed, or whose output is finished."""

    config: PrepareConfig
    """Configuration with absolute paths, and with the settings that its task fixes."""
    executor: Executor
    finished: Manifest | None
    """Manifest of a finished output; None if the output is not finished."""
    listing: Listing
    layout: ShardLayout | None
    """None if the output is finished."""


def check(config: PrepareConfig) -> IngestPlan:
    """List the source and lay out the shards; nothing is written.

    A finished output stays valid if its source is gone, and is refused if the source's clips have changed.

    Raises:
        FileNotFoundError: the source is missing, or one of ``near_copies`` is.
        ValueError: a path cannot be used, the source holds no audio, the output was prepared differently or from other
            clips, or is another job's, or one of ``near_copies`` has another front end.
        InUseError: another process works on the output.
    """
    config = _resolved(config)
    _refuse_incomparable(config)
    if (manifest := _finished(config)) is not None:
        _refuse_changed(config, manifest)
        return IngestPlan(config, IN_PROCESS, manifest, Listing.from_rows([]), None)
    refuse_in_use(config.output)
    executor, listing = _list(config)
    return IngestPlan(config, executor, None, listing, _layout(config, listing))


def describe(plan: IngestPlan) -> Group:
    """Summarise an ingest without starting it."""
    config, listing, layout = plan.config, plan.listing, plan.layout
    if layout is None:
        assert plan.finished is not None
        rest = f" but to search for near-copies in {', '.join(config.near_copies)}" if config.near_copies else ""
        return _summarised(f"{config.output} is already prepared: nothing to do{rest}", plan.finished)
    rows: dict[str, float | str] = {
        "files": len(set(listing.items["uri"].to_pylist())),
        "clips found": len(listing.items),
        **{f"set aside: {reason}": n for reason, n in Counter(reject.reason for reject in listing.rejects).items()},
    }
    if config.fraction < 1:
        rows[f"clips of fraction {config.fraction:g}"] = len(layout.items)
    found = _summary_of_items(config, layout.items, listing.notes)
    for split, count in Counter(layout.items["split"].to_pylist()).items():
        rows |= _rows_of_split(split, f"{count:,} ({count - found.labels[split].unlabelled:,} labelled)", found)
    rows |= {**found.facts, "shards": len(layout.shards), "shards finished before": layout.ledger.num_finished()}
    if config.near_copies:
        rows["search for near-copies in"] = ", ".join(config.near_copies)
    title = f"would prepare {config.output}; a dry run writes nothing"
    return Group(summary(title, rows), *_lines(found.sentences))


def run(plan: IngestPlan) -> Manifest:
    """Write the shards; if the output is finished, write only the preview that the configuration may ask for.

    An interrupted ingest resumes after its finished shards and ends with the same bytes. A bad clip is set aside, with
    its reason in ``rejects.parquet``; faults of clips that are kept are in ``warnings.parquet``.

    Raises:
        InUseError: another process works on the output, or has taken it over.
        ValueError: none of the clips can be used, or a path is local to one machine of a cluster of several.
    """
    config, manifest = plan.config, plan.finished
    if plan.layout is not None:
        for sentence in _summary_of_items(config, plan.layout.items, plan.listing.notes).sentences:
            logger.warning("%s: %s", config.reads, sentence)
        start = time.monotonic()
        reads = {"root": config.root} if config.task else {"source": config.source}
        with plan.executor.open():
            plan.executor.refuse_impossible({**reads, "output": config.output})
            manifest = _ingest(plan.layout, plan.listing, plan.executor)
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
    return _summarised(f"prepared {manifest.uri}", manifest)


def _summarised(title: str, manifest: Manifest) -> Group:
    found = manifest.summary
    rows: dict[str, float | str] = {"clips": manifest.num_clips}
    for split, count in manifest.clips_by_split.items():
        rows |= _rows_of_split(split, f"{count:,}", found)
    rows |= {
        "hours": manifest.seconds / 3600,
        "shards": len(manifest.shards),
        "row groups": sum(len(shard.row_groups) for shard in manifest.shards),
        "megabytes": sum(shard.num_bytes for shard in manifest.shards) / 1e6,
        **told_reasons(manifest.rejects, manifest.warnings),
        **(found.facts if found else {}),
    }
    return Group(summary(title, rows), *_lines(found.sentences if found else ()))


def _rows_of_split(split: str, count: str, found: SourceSummary | None) -> dict[str, str]:
    heading = f"clips of split {split}" if split else "clips without a split"
    labels = found.of_split(split) if found else ""
    return {heading: count} | ({f"labels of {split or 'these'}": labels} if labels else {})


def _lines(sentences: Sequence[str]) -> Iterator[Text]:
    return (Text(f"! {sentence}") for sentence in sentences)


def _summary_of_items(config: PrepareConfig, items: pa.Table, notes: Notes) -> SourceSummary:
    """Summarise clips before they are read."""
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    for split, of_clip in zip(items["split"].to_pylist(), items["labels"].to_pylist(), strict=True):
        labels[split].update({*of_clip} or {""})
    return SourceSummary.of(labels, (), notes, _crossing(config, items))


def _crossing(config: PrepareConfig, items: pa.Table) -> list[str]:
    """Return a sentence on groups in several splits; none for a published task, whose authors chose its splits."""
    if config.task:
        return []
    return crossing_groups(zip(items["group"].to_pylist(), items["split"].to_pylist(), strict=True))


def _resolved(config: PrepareConfig) -> PrepareConfig:
    """Return the configuration with absolute paths, and with the settings that its task fixes."""
    config = paths.check(config)
    return config.replace(root=data_root(config.root), **WHOLE_CLIPS) if config.task else config


def _refuse_incomparable(config: PrepareConfig) -> None:
    """Refuse sources in ``near_copies`` that cannot be compared with the clips, now rather than at the end.

    Raises:
        FileNotFoundError: a source is not prepared.
        ValueError: a source has another front end.
    """
    for uri in config.near_copies:
        there = Manifest.load(uri).front_end
        if there.digest() != config.front_end.digest():
            values = ", ".join(differences(there.flat(), config.front_end.flat()).values())
            raise ValueError(
                f"near_copies={uri} was prepared with another front end than this source ({values}): their clips "
                "cannot be compared. Leave it out, or give both the same front_end"
            )


def _finished(config: PrepareConfig) -> Manifest | None:
    """Return the manifest of a finished output; None if the output is not finished.

    Raises:
        ValueError: the output was prepared differently.
    """
    if not storage.exists(storage.join(config.output, MANIFEST)):
        return None
    manifest = Manifest.load(config.output)
    refuse_difference(config.output, manifest.config, stored(config))
    return manifest


def _refuse_changed(config: PrepareConfig, manifest: Manifest) -> None:
    """Raise ValueError if the source lists other clips than the output was made from."""
    if not manifest.contents:
        return
    try:
        _, listing = _list(config)
    except FileNotFoundError as error:
        logger.warning("%s is not compared with its source: %s", config.output, error)
        return
    if ShardLayout.of(config, listing.items).ledger.plan != manifest.contents:
        raise changed(config.reads, config.output)


def _list(config: PrepareConfig) -> tuple[Executor, Listing]:
    """List the clips; return the executor that reads them, and the listing."""
    if config.task:
        logger.info("reading %s", config.reads)
        return default_executor(), list_task(config.task, config.root)
    source = find(config.source, config.output)
    logger.info("reading %s (%s)", config.source, source.kind)
    executor = default_executor(is_small=source.is_small)
    return executor, _with_unsplit(list_source(source, executor, config.columns), config)


def _with_unsplit(listing: Listing, config: PrepareConfig) -> Listing:
    """Put clips without a split into train if the configuration asks for that (``unsplit="train"``).

    Without that setting, clips that may be test clips are refused.

    Raises:
        ValueError: some clips have no split although other clips, or unread files, are held out; or every clip has a
            split by the names of files and folders alone, and an unread column may hold clips out.
    """
    splits, keys = (listing.items[name].to_pylist() for name in ("split", "key"))
    doubts = [note.text for note in listing.notes if note.held_out and note.kind == "look again"]
    if "" not in splits and not doubts:
        return listing
    if config.unsplit == "train":
        column = pa.array([split or "train" for split in splits], pa.string())
        place = ITEMS.get_field_index("split")
        return replace(listing, items=listing.items.set_column(place, ITEMS.field("split"), column))
    if "" not in splits:
        raise ValueError(
            f"source {config.source}: {first_of(doubts, 5)}. Only names of files and folders say that its clips are "
            "not test clips: write a column split, or trust the names with --unsplit train"
        )
    counts = Counter(splits)
    held_out = [
        f"{counts[split]:,} of split {split} ({keys[splits.index(split)]} …)"
        for split in sorted(counts)
        if split and is_held_out(split)
    ]
    held_out += [note.text for note in listing.notes if note.held_out]
    if held_out:
        raise ValueError(
            f"source {config.source} has {counts['']:,} clips without a split ({keys[splits.index('')]} …) beside "
            f"{first_of(held_out, 5)}: training would read clips that could be test clips. Give all clips a split (a "
            "column split, or files and folders called train, valid and test), or put these into train with --unsplit "
            "train"
        )
    return listing


def _layout(config: PrepareConfig, listing: Listing) -> ShardLayout:
    if not len(listing.items):
        first = [f"; {reject.key}: {reject.detail}" for reject in listing.rejects[:1]]
        raise ValueError(f"source {config.reads} holds no clips{in_words(listing.rejects)}{''.join(first)}")
    layout = ShardLayout.of(config, listing.items)
    if not len(layout.items):
        raise ValueError(
            f"fraction={config.fraction:g} selects none of the {len(listing.items)} clips of {config.reads}"
        )
    if not layout.ledger.check_begun():
        refuse_occupied(config.output)
    return layout


def _ingest(layout: ShardLayout, listing: Listing, executor: Executor) -> Manifest:
    def clips_of_shards() -> Iterator[ShardClips]:
        for shard in layout.shards:
            items = layout.items.take(list(range(shard.start, shard.stop)))  # a slice would carry the whole table
            yield ShardClips(items, shard.max_rows)

    def manifest_of(written: tuple[WrittenShard, ...], rejects: dict[str, int], warnings: dict[str, int]) -> Manifest:
        shards = tuple(each.shard for each in written)
        manifest = Manifest(layout.config.output, shards, rejects, stored(layout.config), warnings)
        labels: dict[str, Counter[str]] = defaultdict(Counter)
        for each in written:
            labels[each.shard.split].update(each.labels)
        shared = find_shared(manifest, ((each.shard.split, unpack(each.recordings)) for each in written))
        found = SourceSummary.of(labels, shared, listing.notes, _crossing(layout.config, layout.items))
        return replace(manifest, summary=found, contents=layout.ledger.plan)

    job = PartedJob(
        "ingest",
        layout.ledger,
        clips_of_shards(),
        [shard.num_clips for shard in layout.shards],
        listing.rejects,
        ShardWriter(layout.config),
        WrittenShard,
    )
    return write_parts(job, executor, lambda: _finished(layout.config), manifest_of)
