"""Makes the chapter of a pre-training or a distillation, and the curves of several runs together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from unfused_ray.figures.curves import Curves, draw_curves
from unfused_ray.figures.metrics import Metric, view_of
from unfused_ray.figures.sizes import draw_sizes
from unfused_ray.figures.watched import draw_panel, panels
from unfused_ray.report.clips import clusters_to_hear
from unfused_ray.report.facts import standing
from unfused_ray.report.page import Chapter, Picture, Section, chart, settings
from unfused_ray.runs.reader import RunReader, curves
from unfused_ray.runs.start_times import read_arithmetic, read_start_times
from unfused_ray.runs.watched import WatchedCurve, watched_curves

KINDS = {"pretrain": "pre-training", "distill": "distillation"}
"""Kind of a chapter, by the stage of its run."""


def training_chapter(run: RunReader, seconds: float, is_compared: bool, requested: Sequence[int]) -> Chapter:
    """Make the chapter of a training run.

    Args:
        run: the run, finished or not.
        seconds: seconds of each clip to listen to.
        is_compared: True if its curves are elsewhere, beside those of other runs.
        requested: clusters to include among those to listen to, which have clips.
    """
    sections = []
    if is_compared:
        sections.append(Section("Over the epochs", ["Its curves are at the top, beside those of the other runs."]))
    elif run.history():
        metrics = view_of(run).metrics
        pictures = curve_pictures(metrics, {"": run.history()})
        drawn = {picture.heading for picture in pictures}
        missing = [metric.heading for metric in metrics if metric.heading not in drawn]
        paragraphs = [f"This run has not recorded: {', '.join(missing)}."] if missing else []
        sections.append(Section("Over the epochs", paragraphs, pictures=pictures))
    else:
        sections.append(Section("Over the epochs", ["No epoch has ended yet."]))
    if watched := watched_curves(run.history()):
        sections.append(watched_section("While it trained", {"": watched}))
    if run.has_assignment:
        sections.append(_sizes(run))
        sections.append(clusters_to_hear(run, seconds, requested))
    facts = {**standing(run), "started": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(run.created))}
    environment = {"run id": run.id, **run.environment, **settings(run.facts), **_last_start(run.uri)}
    config = settings(run.config.model_dump(mode="json"))
    return Chapter(run.config.name, KINDS[run.config.stage], run.uri, facts, sections, config, environment)


def curve_pictures(metrics: Sequence[Metric], histories: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Picture]:
    """Draw each metric, with a curve per head of each history; metrics that no history has are left out.

    Args:
        metrics: metrics to draw.
        histories: histories by the name of their run, which is '' if there is only one.
    """
    pictures = []
    for metric in metrics:
        series = {
            " ".join(part for part in (name, head) if part): curve
            for name, history in histories.items()
            for head, curve in curves(history, metric.name).items()
        }
        if series:
            alt = _in_words(metric.heading, series)
            pictures.append(Picture(metric.heading, alt, chart(draw_curves(series)), metric.note))
    return pictures


def watched_section(heading: str, runs: Mapping[str, Sequence[WatchedCurve]]) -> Section:
    """Draw accuracies over the epochs for each task and measure, with random networks as dashed lines.

    Args:
        heading: heading of the section.
        runs: watched curves by the name of their run, which is '' if there is only one.
    """
    pictures = []
    for (task, measure), found in panels(runs).items():
        parts = [
            f"{f'{name}: ' if name else ''}{curve.accuracies[0]:.1%} after epoch {curve.epochs[0]}, "
            f"{curve.accuracies[-1]:.1%} after epoch {curve.epochs[-1]}, random networks {curve.random:.1%}"
            for name, curve in found.items()
        ]
        alt = f"Validation clips of {task} by {measure}: {'; '.join(parts)}"
        pictures.append(Picture(f"{task}: {measure}", alt, chart(draw_panel(found))))
    text = (
        "Validation clips, classified by their nearest training clips and by a probe on a few labelled ones, as an "
        "evaluation classifies test clips. Dashed: the mean of random networks of the same shape."
    )
    return Section(heading, [text], pictures=pictures)


def _in_words(heading: str, series: Curves) -> str:
    """Return the first and last value of each curve in words."""
    parts = []
    for name, (epochs, values) in series.items():
        text = f"{values[0]:.4g} after epoch {epochs[0]}"
        if len(values) > 1:
            text += f", {values[-1]:.4g} after epoch {epochs[-1]}"
        parts.append(f"{name}: {text}" if name else text)
    return f"{heading} over the epochs: {'; '.join(parts)}"


def _sizes(run: RunReader) -> Section:
    """Show the sizes of the clusters of the first head."""
    assignment, group = run.assignment, view_of(run).group
    labels = assignment.labels[0]
    num_clusters, heads = len(assignment.prototypes[0]), len(assignment.prototypes)
    sizes = np.bincount(labels[labels >= 0], minlength=num_clusters)
    even = len(labels) / num_clusters
    text = (
        f"{num_clusters} {group}s of {len(labels):,} clips: from {sizes.min():,} to {sizes.max():,}, "
        f"median {np.median(sizes):g}, {np.count_nonzero(sizes == 0)} empty"
    )
    source = chart(draw_sizes(sizes, even, group))
    picture = Picture("", f"Histogram of the sizes of {text}", source, f"dashed: equal sizes, {even:.1f} clips", "full")
    paragraph = f"{text}{f'; of the first of {heads} heads' if heads > 1 else ''}."
    return Section(f"Sizes of the {group}s", [paragraph], pictures=[picture])


def _last_start(run_uri: str) -> dict[str, str]:
    """Return device and threads of the run's last start, and seconds to each of its milestones, if they are
    recorded."""
    reached = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in read_start_times(run_uri).items())
    found = {"computed in": read_arithmetic(run_uri), "last start": reached}
    return {heading: text for heading, text in found.items() if text}
