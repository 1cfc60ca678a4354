"""From folders of runs to one page."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from unfused_ray import storage
from unfused_ray.figures.run_figures import Panel
from unfused_ray.figures.run_folder import RunFolder
from unfused_ray.figures.stage_views import view_of
from unfused_ray.report import evaluation, page
from unfused_ray.report.choice import refuse_unknown
from unfused_ray.report.clips import Budget
from unfused_ray.report.page import Cell, Chapter, Section, Table
from unfused_ray.report.training import KINDS, panel_pictures, training_chapter

logger = logging.getLogger(__name__)

_RUN, _SWEEP = "run.json", "sweep.json"
_MANY_BYTES = 5_000_000
_NAMES = ("name", "output")
"""Settings that say which run it is, not what it does."""


def write(uris: Sequence[str], output: str, asked: Sequence[int] = ()) -> int:
    """Make one page of some runs: pre-trainings, distillations, evaluations and sweeps.

    Args:
        uris: their folders.
        output: where the page goes.
        asked: clusters, by number, to be among those to listen to, of every run that has clusters.

    Returns:
        Its size in bytes.

    Raises:
        ValueError: no folder is given, one is of no run, or a run does not have a cluster that is asked for.
        OSError: one cannot be read, or the page not be written.
    """
    html = to_html(uris, asked).encode()
    if len(html) > _MANY_BYTES:
        logger.warning("the page has %.1f MB: a phone may be slow with it, name fewer runs", len(html) / 1e6)
    storage.write_bytes(output, html)
    return len(html)


def to_html(uris: Sequence[str], asked: Sequence[int] = ()) -> str:
    """The page of some runs, see :func:`write`."""
    if not uris:
        raise ValueError("no run is named: give the folders of one or several runs")
    kinds = {uri: kind_of(uri) for uri in dict.fromkeys(uris)}
    runs = {uri: RunFolder(uri) for uri, kind in kinds.items() if kind == _RUN}
    asked = tuple(dict.fromkeys(asked))
    refuse_unknown(list(runs.values()), asked)
    compared = _alike(list(runs.values()))
    budget = Budget.of(sum(run.is_labelled for run in runs.values()), len(asked))
    chapters = []
    for uri, kind in kinds.items():
        logger.info("reading %s", storage.masked(uri))
        if kind == _RUN:
            is_compared = any(runs[uri] in alike for alike in compared.values())
            chapters.append(training_chapter(runs[uri], budget, is_compared, asked))
        elif kind == _SWEEP:
            from unfused_ray.report.sweep import sweep_chapter  # here: with it comes Ray Tune, seconds others save

            chapters.append(sweep_chapter(uri))
        else:
            chapters.append(evaluation.evaluation_chapter(uri))
    comparisons = [_compare(chapters, compared)] if len(chapters) > 1 else []
    title = chapters[0].heading if len(chapters) == 1 else f"{len(chapters)} runs"
    subtitle = time.strftime("written %Y-%m-%d %H:%M UTC", time.gmtime())
    return page.to_html(title, subtitle, [*comparisons, *chapters])


def kind_of(uri: str) -> str:
    """The file that a folder is known by: that of a training run, of a sweep, or of an evaluation's table.

    Raises:
        ValueError: it holds none of them.
    """
    for name in (_SWEEP, _RUN, evaluation.TABLE):
        if storage.exists(storage.join(uri, name)):
            return name
    raise ValueError(
        f"{uri} is not the folder of a run: it holds neither {_RUN} (pre-training, distillation), {_SWEEP} (sweep) nor "
        f"{evaluation.TABLE} (evaluation)"
    )


def _alike(runs: Sequence[RunFolder]) -> dict[str, list[RunFolder]]:
    """By kind, the runs whose curves share their axes; of a kind there are several or none."""
    begun = {
        kind: [run for run in runs if run.record["stage"] == stage and run.history] for stage, kind in KINDS.items()
    }
    return {kind: alike for kind, alike in begun.items() if len(alike) > 1}


def _compare(chapters: Sequence[Chapter], compared: Mapping[str, Sequence[RunFolder]]) -> Chapter:
    """What several runs have in common and what not: a line each, differing settings, curves on one scale."""
    rows = [
        [Cell(chapter.heading), Cell(chapter.kind), Cell(chapter.facts.get("progress", "–")), Cell(chapter.uri)]
        for chapter in chapters
    ]
    sections = [Section("Runs", tables=[Table("Runs", ("name", "kind", "progress", "folder"), rows)])]
    for kind in dict.fromkeys(chapter.kind for chapter in chapters):
        alike = [chapter for chapter in chapters if chapter.kind == kind]
        if len(alike) > 1:
            sections.append(_differences(kind, alike))
    for kind, runs in compared.items():
        panels: dict[str, Panel] = {}
        for panel in (panel for run in runs for panel in view_of(run).panels()):
            known = panels.setdefault(panel.figure, panel)
            if panel.note != known.note:  # such as α, which is not the same for all
                panels[panel.figure] = replace(known, note="")
        histories = dict(zip(_distinct([run.config.name for run in runs]), [run.history for run in runs], strict=True))
        sections.append(Section(f"Curves, {kind}", pictures=panel_pictures(list(panels.values()), histories)))
    return Chapter("Side by side", "comparison", sections=sections)


def _differences(kind: str, chapters: Sequence[Chapter]) -> Section:
    """The settings in which runs of one kind differ, a column a run."""
    settings = [chapter.settings for chapter in chapters]
    names = [name for name in dict.fromkeys(name for each in settings for name in each) if name not in _NAMES]
    rows = [
        [Cell(name), *(Cell(each.get(name, "–")) for each in settings)]
        for name in names
        if len({each.get(name) for each in settings}) > 1
    ]
    heading = f"Differences, {kind}"
    if not rows:
        return Section(heading, ["Their configurations are the same, but for name and output."])
    columns = _distinct([chapter.heading for chapter in chapters])
    caption = f"Settings that differ; {len(names) - len(rows)} are the same"
    return Section(heading, tables=[Table(caption, ("setting", *columns), rows)])


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, with a number where one is that of several runs."""
    return [
        f"{name} ({names[: place + 1].count(name)})" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]
