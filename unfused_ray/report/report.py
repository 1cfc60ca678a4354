"""Makes one page from the folders of some runs."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from unfused_ray import storage
from unfused_ray.evaluation.table import TABLE, refuse_comparison
from unfused_ray.figures.metrics import Metric, view_of
from unfused_ray.report import page
from unfused_ray.report.choice import refuse_unknown
from unfused_ray.report.clips import clip_seconds
from unfused_ray.report.evaluation import evaluation_chapter
from unfused_ray.report.page import Chapter, PageCell, PageTable, Section
from unfused_ray.report.training import KINDS, curve_pictures, training_chapter
from unfused_ray.runs.reader import RunReader
from unfused_ray.runs.run import RECORD
from unfused_ray.sweeps import SWEEP

logger = logging.getLogger(__name__)

_MANY_BYTES = 5_000_000
_NAMES = ("name", "output")
"""Settings that distinguish runs and change no result."""


def write(uris: Sequence[str], output: str, requested: Sequence[int] = ()) -> int:
    """Make one page of some runs: pre-trainings, distillations, evaluations and sweeps.

    Args:
        uris: folders of the runs.
        output: path or URI of the page.
        requested: numbers of clusters to include among those to listen to, for every run that has clusters.

    Returns:
        Size of the page in bytes.

    Raises:
        ValueError: no folder is given, a folder holds no run, or a run lacks a requested cluster.
        OSError: a run cannot be read, or the page cannot be written.
    """
    html = to_html(uris, requested).encode()
    if len(html) > _MANY_BYTES:
        logger.warning("the page has %.1f MB: a phone may be slow with it, name fewer runs", len(html) / 1e6)
    storage.write_bytes(output, html)
    return len(html)


def to_html(uris: Sequence[str], requested: Sequence[int] = ()) -> str:
    """Return the HTML of one page of some runs; arguments and errors are those of :func:`write`."""
    if not uris:
        raise ValueError("no run is named: give the folders of one or several runs")
    kinds = {uri: kind_of(uri) for uri in dict.fromkeys(uris)}
    runs = {uri: RunReader(uri) for uri, kind in kinds.items() if kind == RECORD}
    requested = tuple(dict.fromkeys(requested))
    refuse_unknown(list(runs.values()), requested)
    compared = _alike(list(runs.values()))
    seconds = clip_seconds(sum(run.has_assignment for run in runs.values()), len(requested))
    chapters = []
    for uri, kind in kinds.items():
        logger.info("reading %s", storage.masked(uri))
        if kind == RECORD:
            is_compared = any(runs[uri] in alike for alike in compared.values())
            chapters.append(training_chapter(runs[uri], seconds, is_compared, requested))
        elif kind == SWEEP:
            from unfused_ray.report.sweep import sweep_chapter  # here, because it imports Ray Tune, which takes seconds

            chapters.append(sweep_chapter(uri))
        else:
            chapters.append(evaluation_chapter(uri))
    comparisons = [_compare(chapters, compared)] if len(chapters) > 1 else []
    title = chapters[0].heading if len(chapters) == 1 else f"{len(chapters)} runs"
    subtitle = time.strftime("written %Y-%m-%d %H:%M UTC", time.gmtime())
    return page.to_html(title, subtitle, [*comparisons, *chapters])


def kind_of(uri: str) -> str:
    """Return the name of the file that identifies a folder as a training run, a sweep or an evaluation.

    Raises:
        ValueError: the folder holds none of these files, or is a comparison.
    """
    refuse_comparison(uri)
    for name in (SWEEP, RECORD, TABLE):
        if storage.exists(storage.join(uri, name)):
            return name
    raise ValueError(
        f"{uri} is not the folder of a run: it holds neither {RECORD} (pre-training, distillation), {SWEEP} (sweep) "
        f"nor {TABLE} (evaluation)"
    )


def _alike(runs: Sequence[RunReader]) -> dict[str, list[RunReader]]:
    """Return runs whose curves can share axes, by kind; only kinds with several such runs."""
    begun = {
        kind: [run for run in runs if run.config.stage == stage and run.history()] for stage, kind in KINDS.items()
    }
    return {kind: alike for kind, alike in begun.items() if len(alike) > 1}


def _compare(chapters: Sequence[Chapter], compared: Mapping[str, Sequence[RunReader]]) -> Chapter:
    """Compare several runs: one line each, differing settings, and curves on one scale."""
    rows = [
        [PageCell(text) for text in (chapter.heading, chapter.kind, chapter.facts.get("progress", "–"), chapter.uri)]
        for chapter in chapters
    ]
    sections = [Section("Runs", tables=[PageTable("Runs", ("name", "kind", "progress", "folder"), rows)])]
    for kind in dict.fromkeys(chapter.kind for chapter in chapters):
        alike = [chapter for chapter in chapters if chapter.kind == kind]
        if len(alike) > 1:
            sections.append(_differences(kind, alike))
    for kind, runs in compared.items():
        metrics: dict[str, Metric] = {}
        for metric in (metric for run in runs for metric in view_of(run).metrics):
            known = metrics.setdefault(metric.name, metric)
            if metric.note != known.note:  # such as α, if it differs between runs
                metrics[metric.name] = replace(known, note="")
        histories = dict(
            zip(_distinct([run.config.name for run in runs]), [run.history() for run in runs], strict=True)
        )
        sections.append(Section(f"Curves, {kind}", pictures=curve_pictures(list(metrics.values()), histories)))
    return Chapter("Side by side", "comparison", sections=sections)


def _differences(kind: str, chapters: Sequence[Chapter]) -> Section:
    """Show the settings in which runs of one kind differ, one column per run."""
    settings = [chapter.settings for chapter in chapters]
    names = [name for name in dict.fromkeys(name for each in settings for name in each) if name not in _NAMES]
    rows = [
        [PageCell(name), *(PageCell(each.get(name, "–")) for each in settings)]
        for name in names
        if len({each.get(name) for each in settings}) > 1
    ]
    heading = f"Differences, {kind}"
    if not rows:
        return Section(heading, ["Their configurations are the same, but for name and output."])
    columns = _distinct([chapter.heading for chapter in chapters])
    caption = f"Settings that differ; {len(names) - len(rows)} are the same"
    return Section(heading, tables=[PageTable(caption, ("setting", *columns), rows)])


def _distinct(names: Sequence[str]) -> list[str]:
    """Return the names, numbered if several runs share one, by numbers that no other name ends in."""
    taken = set(names)

    def numbered(name: str) -> str:
        found = next(each for n in itertools.count(1) if (each := f"{name} ({n})") not in taken)
        taken.add(found)
        return found

    return [numbered(name) if names.count(name) > 1 else name for name in names]
