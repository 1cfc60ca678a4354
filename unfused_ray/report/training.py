"""The chapter of a pre-training or a distillation, and the curves of several together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from unfused_ray.figures.run_figures import Panel, draw_curves, new_figure
from unfused_ray.figures.run_folder import RunFolder, curves
from unfused_ray.figures.stage_views import view_of
from unfused_ray.figures.summary import standing
from unfused_ray.report.clips import Budget, clusters_to_hear
from unfused_ray.report.page import Chapter, Picture, Section, settings
from unfused_ray.report.pictures import as_svg
from unfused_ray.runs.start_times import read_start_times

KINDS = {"pretrain": "pre-training", "distill": "distillation"}
"""By the stage of a run's record."""
_SIZE = (4.4, 2.7)


def training_chapter(run: RunFolder, budget: Budget, is_compared: bool, asked: Sequence[int] = ()) -> Chapter:
    """What the folder of a training run holds.

    Args:
        run: finished or not.
        budget: of the clips to listen to.
        is_compared: whether its curves stand elsewhere, beside those of other runs.
        asked: clusters to be among those to listen to, which have clips.
    """
    sections = []
    if is_compared:
        sections.append(Section("Over the epochs", ["Its curves stand beside those of the other runs, at the top."]))
    elif run.history:
        panels = view_of(run).panels()
        pictures = panel_pictures(panels, {"": run.history})
        missing = [panel.heading for panel in panels if panel.heading not in {each.heading for each in pictures}]
        paragraphs = [f"This run has not recorded: {', '.join(missing)}."] if missing else []
        sections.append(Section("Over the epochs", paragraphs, pictures=pictures))
    else:
        sections.append(Section("Over the epochs", ["No epoch has ended yet."]))
    if run.is_labelled:
        sections.append(_sizes(run))
        sections.append(clusters_to_hear(run, budget, asked))
    facts = {**standing(run), "started": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(run.record["created"]))}
    known = run.record.get("environment", {})  # older runs say nothing of it
    environment = {"run id": run.record["id"], **known, **settings(run.record["facts"]), **_beginning(run.uri)}
    config = settings(run.record["config"])
    return Chapter(run.config.name, KINDS[run.record["stage"]], run.uri, facts, sections, config, environment)


def panel_pictures(panels: Sequence[Panel], histories: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Picture]:
    """A drawing a panel, with a curve for each head of each history; panels that no history has are left out.

    Args:
        panels: what to draw.
        histories: by the name of their run, which is '' where there is only one.
    """
    pictures = []
    for panel in panels:
        series = {
            " ".join(part for part in (name, head) if part): curve
            for name, history in histories.items()
            for head, curve in curves(history, panel.figure).items()
        }
        if series:
            figure = new_figure("", *_SIZE)
            axis = figure.add_subplot()
            draw_curves(axis, series)
            axis.set_xlabel("epoch")
            pictures.append(Picture(panel.heading, _in_words(panel, series), as_svg(figure), panel.note))
    return pictures


def _in_words(panel: Panel, series: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> str:
    """What a panel shows: its first and last value in each curve."""
    parts = []
    for name, (epochs, values) in series.items():
        text = f"{values[0]:.4g} after epoch {epochs[0]}"
        if len(values) > 1:
            text += f", {values[-1]:.4g} after epoch {epochs[-1]}"
        parts.append(f"{name}: {text}" if name else text)
    return f"{panel.heading} over the epochs: {'; '.join(parts)}"


def _sizes(run: RunFolder) -> Section:
    """How many clips the clusters of the first head have."""
    assignment, group = run.assignment, view_of(run).group
    labels = assignment.labels[0]
    num_clusters = len(assignment.prototypes[0])
    sizes = np.bincount(labels[labels >= 0], minlength=num_clusters)
    figure = new_figure("", 8.8, 2.9)
    axis = figure.add_subplot()
    whole = np.arange(sizes.min(), sizes.max() + 2)  # each size is a bar of its own as long as there is room
    axis.hist(sizes, bins=(whole - 0.5).tolist() if len(whole) <= 60 else 40, color="tab:blue", rwidth=0.9)
    even = len(labels) / num_clusters
    axis.axvline(even, color="0.35", linewidth=1.2, linestyle="--")
    axis.set(xlabel=f"clips of a {group}", ylabel=f"{group}s", xlim=(0, sizes.max() * 1.02 + 1))
    axis.spines[["top", "right"]].set_visible(False)
    heads = len(assignment.prototypes)
    text = (
        f"{num_clusters} {group}s of {len(labels):,} clips: from {sizes.min():,} to {sizes.max():,}, "
        f"median {np.median(sizes):g}, {np.count_nonzero(sizes == 0)} empty"
    )
    paragraphs = [f"{text}{f'; of the first of {heads} heads' if heads > 1 else ''}."]
    picture = Picture("", f"Histogram of the sizes of {text}", as_svg(figure), f"dashed: if all had {even:.1f}", "full")
    return Section(f"Sizes of the {group}s", paragraphs, pictures=[picture])


def _beginning(run_uri: str) -> dict[str, str]:
    """Where the first seconds of its last start went, where that is kept."""
    reached = read_start_times(run_uri)
    return {"last start": ", ".join(f"{name} {seconds:.1f} s" for name, seconds in reached.items())} if reached else {}
